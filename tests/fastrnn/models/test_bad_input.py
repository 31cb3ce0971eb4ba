"""Bad input to layers raises, says what came and what was wanted, and changes nothing.

Sizes are chosen so that no number in a message can stand for another one.
"""

import re

import numpy as np
import pytest

from cases import make, problem, states

T, B, I, H, P = 5, 3, 11, 13, 6
WIDE = 40

INPUT, STATE = r"\binput\b", r"\b(state|h0|c0)\b"


def says(*patterns):
    """A pattern for `match`: all of these stand in the message, in any order."""
    return "".join(f"(?=.*(?:{pattern}))" for pattern in patterns)


def number(n):
    return rf"\b{n}\b"


LAYERS = {
    "RNN": ("RNN-tanh", {}),
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "LSTM-projected": ("LSTM", {"proj_size": P}),
    "GRU-batch-first": ("GRU", {"batch_first": True}),
}


@pytest.fixture(params=LAYERS.values(), ids=list(LAYERS))
def layer(request):
    """A layer that must be, after the test, what it was before."""
    cell, options = request.param
    layer = make(cell, I, H, 2, **options)
    x = good(layer).x
    weights, (y, state) = layer.state_dict(), layer(x)
    yield layer
    for key, array in layer.state_dict().items():
        assert np.array_equal(array, weights[key]), key
    again, final = layer(x)
    assert np.array_equal(again, y)
    for mine, its in zip(states(final), states(state), strict=True):
        assert np.array_equal(mine, its)


def good(layer):
    p = problem(layer, T, B)
    return p.swap() if layer.batch_first else p


def raises_everywhere(layer, error, match, x, *args, **kwargs):
    """Both ways in, with and without a tape, refuse it in the same words."""
    messages = []
    for call in (layer, layer.forward):
        with pytest.raises(error, match=match) as caught:
            call(x, *args, **kwargs)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(), (I,), (T, B, I, 1), (1, 1, T, B, I)])
def test_input_of_the_wrong_rank(layer, shape):
    match = says(INPUT, rf"\b{len(shape)}\b|{re.escape(str(shape))}", r"\bI\)")
    raises_everywhere(layer, ValueError, match, np.zeros(shape, np.float32))


@pytest.mark.parametrize("rank", [2, 3])
def test_input_of_the_wrong_size(layer, rank):
    x = np.zeros((T, B, WIDE)[-rank:], np.float32)
    raises_everywhere(layer, ValueError, says(INPUT, number(WIDE), number(I)), x)


KINDS = ["float64", "float16", "int64", "uint8", "bool", "complex64", "<U3", "object"]


@pytest.mark.parametrize("dtype", KINDS)
def test_input_of_the_wrong_kind(layer, dtype):
    x = np.zeros((T, B, I), dtype)
    match = says(INPUT, re.escape(str(x.dtype)), "float32")
    raises_everywhere(layer, TypeError, match, x)


def test_float32_into_a_float64_layer():
    layer = make("GRU", I, H, dtype="float64")
    match = says(INPUT, "float32", "float64")
    raises_everywhere(layer, TypeError, match, np.zeros((T, B, I), np.float32))


@pytest.mark.parametrize("x", [None, "text", 3, object()])
def test_input_that_is_no_array(layer, x):
    raises_everywhere(layer, TypeError, INPUT, x)


def replaced(p, part, array):
    """The state with one part in place of its own."""
    parts = list(p.state)
    parts[part] = array
    return tuple(parts) if len(parts) > 1 else parts[0]


def bad_shapes(shape):
    L, rows, width = shape
    return {
        "rows": (L, rows + 4, width),
        "layers": (L + 5, rows, width),
        "width": (L, rows, WIDE),
        "rank": (rows, width),
    }


@pytest.mark.parametrize("what", ["rows", "layers", "width", "rank"])
def test_state_of_the_wrong_shape(layer, what):
    """h, and for an LSTM c; the message has both shapes, or both of the differing sizes."""
    p = good(layer)
    for k, part in enumerate(p.state):
        shape = bad_shapes(part.shape)[what]
        if what == "rank":
            wanted = (r"\(.*,.*,.*\)|\b3\b",)
        else:
            pairs = zip(shape, part.shape, strict=True)
            ((came, want),) = [(a, b) for a, b in pairs if a != b]
            wanted = (rf"\b{came}\b", rf"\b{want}\b")
        state = replaced(p, k, np.zeros(shape, np.float32))
        raises_everywhere(layer, ValueError, says(STATE, *wanted), p.x, state)


@pytest.mark.parametrize("dtype", KINDS)
def test_state_of_the_wrong_kind(layer, dtype):
    p = good(layer)
    for k, part in enumerate(p.state):
        state = replaced(p, k, np.zeros(part.shape, dtype))
        match = says(STATE, re.escape(str(np.dtype(dtype))), "float32")
        raises_everywhere(layer, TypeError, match, p.x, state)


def test_state_of_the_wrong_structure(layer):
    p = good(layer)
    h = p.state[0]
    wrong = [(h,), (h, h, h), "text", 3, [None, None]]
    wrong += [h] if len(p.state) == 2 else [(h, h)]
    for state in wrong:
        raises_everywhere(layer, (TypeError, ValueError), STATE, p.x, state)


def test_state_of_a_batch_for_a_single_sequence(layer):
    p = good(layer)
    x = np.zeros((T, I), np.float32)
    state = p.state if len(p.state) > 1 else p.state[0]
    raises_everywhere(layer, ValueError, STATE, x, state)


@pytest.mark.parametrize(
    ("lengths", "error", "wanted"),
    [
        (np.array([1, -7, 2]), ValueError, ["-7", rf"\b{T}\b"]),
        (np.array([1, 77, 2]), ValueError, ["77", rf"\b{T}\b"]),
        (np.array([1, 2, 3, 4, 0, 1, 2, 3, 4]), ValueError, [r"\b9\b", rf"\b{B}\b"]),
        (np.array([], int), ValueError, [r"\b0\b", rf"\b{B}\b"]),
        (np.array([[1, 2, 3]]), ValueError, [r"\(1, 3\)|\b2\b", rf"\b{B}\b|\(B,?\)"]),
        (np.array(4), ValueError, [r"\(\)|\b0\b", rf"\b{B}\b|\(B,?\)"]),
        (np.array([1.0, 2.0, 3.0]), TypeError, ["float64", "integer"]),
        (np.array([True, False, True]), TypeError, ["bool", "integer"]),
        (np.array([1 + 0j, 2, 3]), TypeError, ["complex128", "integer"]),
        (["1", "2", "3"], TypeError, ["integer"]),
        (np.array([1, 2**40, 2], np.int64), ValueError, [str(2**40), rf"\b{T}\b"]),
        (np.array([1, 2**63, 2], np.uint64), ValueError, [str(2**63), rf"\b{T}\b"]),
    ],
)
def test_lengths(layer, lengths, error, wanted):
    raises_everywhere(layer, error, says("lengths", *wanted), good(layer).x, lengths=lengths)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "wanted"),
    [
        ((T, B + 4), bool, ValueError, [r"\b7\b", rf"\b{B}\b"]),
        ((T + 4, B), bool, ValueError, [r"\b9\b", rf"\b{T}\b"]),
        ((T,), bool, ValueError, [rf"\({T},\)|\b1\b", rf"\b{B}\b|\(T, B\)|\(B, T\)"]),
        ((T, B, 1), bool, ValueError, [r", 1\)|\b3\b"]),
        ((T, B), np.int64, TypeError, ["int64", "bool"]),
        ((T, B), np.float32, TypeError, ["float32", "bool"]),
        ((T, B), object, TypeError, ["object", "bool"]),
    ],
)
def test_reset(layer, shape, dtype, error, wanted):
    if layer.batch_first and len(shape) > 1:
        shape = (shape[1], shape[0], *shape[2:])
    reset = np.zeros(shape, dtype)
    raises_everywhere(layer, error, says("reset", *wanted), good(layer).x, reset=reset)


def test_reset_with_time_and_batch_exchanged(layer):
    p = good(layer)
    reset = np.zeros(p.x.shape[1::-1], bool)
    raises_everywhere(layer, ValueError, says("reset", rf"\b{T}\b", rf"\b{B}\b"), p.x, reset=reset)


@pytest.mark.parametrize("rng", [3, "seed", np.random])
def test_rng_that_is_no_generator(rng):
    layer = make("GRU", I, H, 2, dropout=0.5)
    with pytest.raises(TypeError, match=says("rng", "Generator", re.escape(str(rng)))):
        layer.forward(good(layer).x, rng=rng)


def test_dy(layer):
    p = good(layer)
    width = p.dy.shape[-1]
    _, _, tape = layer.forward(p.x)
    wide = np.zeros((*p.dy.shape[:2], WIDE), np.float32)
    with pytest.raises(ValueError, match=says(r"\bdy\b", number(WIDE), number(width))):
        layer.backward(tape, wide)
    with pytest.raises(ValueError, match=says(r"\bdy\b", number(T + 4), number(T))):
        layer.backward(tape, np.zeros([T + 4 if n == T else n for n in p.dy.shape], np.float32))
    with pytest.raises(ValueError, match=r"\bdy\b"):
        layer.backward(tape, p.dy[0])
    for dtype in KINDS:
        match = says(r"\bdy\b", re.escape(str(np.dtype(dtype))), "float32")
        with pytest.raises(TypeError, match=match):
            layer.backward(tape, np.zeros(p.dy.shape, dtype))
    with pytest.raises(TypeError, match=r"\bdy\b"):
        layer.backward(tape, "text")


@pytest.mark.parametrize("what", ["rows", "layers", "width", "rank"])
def test_dstate(layer, what):
    p = good(layer)
    _, _, tape = layer.forward(p.x)
    for k, part in enumerate(p.state):
        dstate = replaced(p, k, np.zeros(bad_shapes(part.shape)[what], np.float32))
        with pytest.raises(ValueError, match=r"\b(dstate|dh|dc|dh_n|dc_n)\b"):
            layer.backward(tape, p.dy, dstate)
        dstate = replaced(p, k, np.zeros(part.shape, np.float64))
        with pytest.raises(TypeError, match=says("float64", "float32")):
            layer.backward(tape, p.dy, dstate)


def test_tape(layer):
    p = good(layer)
    for tape in (None, "tape", p.x):
        with pytest.raises(TypeError, match=r"\btape\b"):
            layer.backward(tape, p.dy)
    other = make("GRU", I, WIDE)
    _, _, foreign = other.forward(np.zeros((T, B, I), np.float32))
    with pytest.raises((TypeError, ValueError), match=r"\btape\b"):
        layer.backward(foreign, p.dy)
