"""What must not crash, hang or give numbers: wrong shapes, forks, memory that was released.

`test_backends.py` runs this file once for each backend.
"""

import contextlib
import os
import signal
import time
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import fastrnn
import fastrnn.keras
from fastrnn.keras import engine, kept
from fastrnn.keras.weights import Layout, Packed
from fastrnn_kernels.cells.gru import GRU
from fastrnn_kernels.cells.lstm import LSTM
from keras_tools import (
    BACKEND,
    TRAINS,
    arrays,
    assert_close,
    gradients,
    only_kernels,
    outputs,
    tensor,
)

B, T, I, H = 4, 6, 3, 5
NAMES = ("SimpleRNN", "LSTM", "GRU")
NAME = pytest.mark.parametrize("name", NAMES if BACKEND in ("numpy", "torch") else NAMES[1:2])
TOLERANCE = 1e-5  # of float32, as in cases_layers
#: What Keras's backends raise, each its own.
REFUSED: tuple[type[Exception], ...] = (IndexError, RuntimeError, TypeError, ValueError)
if BACKEND == "tensorflow":
    import tensorflow as tf

    REFUSED += (tf.errors.OpError,)
EVERYTHING = {"return_sequences": True, "return_state": True}


def pair(name, **options):
    """Keras's layer and fastrnn's, or cells, with the same weights."""
    own, ours = (getattr(module, name)(H, **options) for module in (layers, fastrnn.keras))
    for one in (own, ours):
        one.build((B, I) if name.endswith("Cell") else (B, T, I))
    ours.set_weights(own.get_weights())
    return own, ours


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")


def some_states(name, *shape):
    return [normal(*shape), 2 * normal(*shape)][: 1 + name.startswith("LSTM")]


#: x, mask and states that do not fit, of a layer, and what is said of them.
WRONG = {
    "wider x": (lambda n: (normal(B, T, 8), None, None), r"x \(B, T, I\) has I=8, .* takes 3"),
    "narrower x": (lambda n: (normal(B, T, 2), None, None), r"has I=2, its kernel takes 3"),
    "wider states": (
        lambda n: (normal(B, T, I), None, some_states(n, B, H + 2)),
        r"state h has shape \(4, 7\), wanted \(B, H\) = \(4, 5\)",
    ),
    "fewer rows of states": (
        lambda n: (normal(B, T, I), None, some_states(n, B - 2, H)),
        r"state h has shape \(2, 5\), wanted \(B, H\) = \(4, 5\)",
    ),
    "another last state": (
        lambda n: (normal(B, T, I), None, [*some_states(n, B, H)[:-1], normal(B, H + 1)]),
        r"state [hc] has shape \(4, 6\)",
    ),
    "fewer rows of the mask": (
        lambda n: (normal(B, T, I), np.ones((B - 1, T), bool), None),
        r"mask has shape \(3, 6\), wanted \(B, T\) = \(4, 6\)",
    ),
    "fewer steps of the mask": (
        lambda n: (normal(B, T, I), np.ones((B, T - 1), bool), None),
        r"mask has shape \(4, 5\), wanted \(B, T\) = \(4, 6\)",
    ),
}


@NAME
@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_an_error_as_in_keras(name, wrong):
    make, said = WRONG[wrong]
    own, ours = pair(name)
    # NumPy's loop ends with such a mask, and leaves out the steps that it does not have.
    if (BACKEND, wrong) != ("numpy", "fewer steps of the mask"):
        with pytest.raises(REFUSED):
            outputs(own, *make(name))
    with only_kernels(), pytest.raises(ValueError, match=rf"{ours.name}: .*{said}"):
        outputs(ours, *make(name))
    x = normal(B, T, I)
    with only_kernels():
        found = outputs(ours, x)
    assert_close(found, outputs(own, x), TOLERANCE)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_states(count):
    _, ours = pair("LSTM")
    with only_kernels(), pytest.raises(ValueError, match=rf"states are {count}, wanted 2 \(h, c\)"):
        outputs(ours, normal(B, T, I), None, [normal(B, H)] * count)


@NAME
@pytest.mark.parametrize("masked", [False, True])
def test_one_row_stands_for_the_whole_batch(name, masked):
    own, ours = pair(name, **EVERYTHING)
    x, states = normal(B, T, I), some_states(name, 1, H)
    mask = np.array([[0, 1, 1, 0, 1, 0]], bool) if masked else None
    # Keras's loop under JAX wants states that do not change their shape.
    everywhere = [np.repeat(s, B, axis=0) for s in states] if BACKEND == "jax" else states
    with only_kernels():
        found = outputs(ours, x, mask, states)
    assert_close(found, outputs(own, x, mask, everywhere), TOLERANCE)
    if TRAINS:
        with only_kernels():
            found = gradients(ours, x, mask, states)
        wanted = gradients(own, x, mask, everywhere)
        for k in range(1, 1 + len(states)):
            assert found[k].shape == (1, H)
            wanted[k] = wanted[k].sum(axis=0, keepdims=True)
        assert_close(found, wanted, 5 * TOLERANCE)  # sums over the batch


WRONG_FOR_CELLS = {
    "wider x": (lambda n: (normal(B, 12), some_states(n, B, H)), r"x \(B, I\) has I=12"),
    "wider states": (lambda n: (normal(B, I), some_states(n, B, H + 2)), r"shape \(4, 7\)"),
    "more rows of states": (
        lambda n: (normal(B, I), some_states(n, B + 1, H)),
        r"state h has shape \(5, 5\), wanted \(B, H\) = \(4, 5\)",
    ),
    "no states": (lambda n: (normal(B, I), []), r"states are 0, wanted"),
}


@NAME
@pytest.mark.parametrize("wrong", WRONG_FOR_CELLS)
def test_what_does_not_fit_a_cell(name, wrong):
    make, said = WRONG_FOR_CELLS[wrong]
    own, ours = pair(name + "Cell")
    x, states = make(name)
    with pytest.raises(REFUSED):
        own(tensor(x), [tensor(state) for state in states])
    with only_kernels(), pytest.raises(ValueError, match=rf"{ours.name}: .*{said}"):
        ours(tensor(x), [tensor(state) for state in states])


@NAME
def test_one_row_of_states_for_a_cell(name):
    own, ours = pair(name + "Cell")
    x, states = tensor(normal(B, I)), [tensor(state) for state in some_states(name, 1, H)]
    with only_kernels():
        found = arrays(ours(x, states))
    assert_close(found, arrays(own(x, states)), TOLERANCE)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow traces without all sizes")
def test_sizes_that_a_graph_does_not_know():
    own, ours = pair("LSTM", **EVERYTHING)
    x, states = normal(B, T, I), some_states("LSTM", 1, H)
    some = tf.TensorSpec((None, None, None), "float32")
    state = tf.TensorSpec((None, None), "float32")

    @tf.function(input_signature=[some, state, state])
    def run(x, h, c):
        return ours(x, initial_state=[h, c])

    assert_close(arrays(run(x, *states)), outputs(own, x, None, states), TOLERANCE)
    for wrong in (
        (normal(B, T, I + 1), *states),
        (x, normal(B, H + 1), states[1]),
        (x, states[0], normal(B - 1, H)),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            run(*wrong)


def engine_call(cell, **how):
    """A call of the kernels for LSTM or GRU, and arguments for it."""
    layout = Layout(two_biases=cell is GRU)
    packed, G = Packed(), len(cell.gates) * H
    weights = normal(I, G), normal(H, G), normal(2, G) if cell is GRU else normal(G)
    weights = *weights, None, None
    states = tuple(some_states(cell.name.upper(), B, H))
    call = engine.Call(cell, layout, weakref.ref(packed), **how)
    return packed, call, (normal(B, T, I), np.ones((B, T), bool), weights, states)


@pytest.mark.parametrize("cell", [LSTM, GRU], ids=["LSTM", "GRU"])
def test_nothing_of_a_wrong_shape_reaches_a_kernel(cell):
    _, call, (x, mask, (kernel, recurrent, bias, *_), states) = engine_call(cell, sequences=True)
    weights = kernel, recurrent, bias, None, None
    shown, final, tape = engine.forward(call, x, mask, weights, states, taping=True)
    for wrong in (
        (x[0], mask, weights, states),
        (x[:, :, :2], mask, weights, states),
        (x, mask[:1], weights, states),
        (x, mask.T, weights, states),
        (x, mask.astype(np.float32), weights, states),
        (x, mask, (kernel[:, 1:], recurrent, bias, None, None), states),
        (x, mask, (kernel, recurrent[:2], bias, None, None), states),
        (x, mask, (kernel, recurrent.astype(np.float64), bias, None, None), states),
        (x, mask, (kernel, recurrent, bias[..., 1:], None, None), states),
        (x, mask, (*weights[:4], np.ones((1, H), np.float32)), states),
        (x, mask, weights, states[1:]),
        (x, mask, weights, (*states, states[0])),
        (x, mask, weights, (states[0][:1], *states[1:])),
        (x, mask, weights, (*states[:-1], states[-1][:, 1:])),
    ):
        with pytest.raises(ValueError, match=r"wanted"):
            engine.forward(call, *wrong, taping=True)
    for d_shown, d_final in (
        (shown[:, 1:], final),
        (shown[:, 0], final),
        (shown, final[1:]),
        (shown, (final[0][1:], *final[1:])),
    ):
        with pytest.raises(ValueError, match=r"wanted"):
            engine.backward(tape, d_shown, d_final)


def leaves(tree):
    """The arrays of a tree: a cell may have no parameters of a kind."""
    return [one for one in keras.tree.flatten(tree) if one is not None]


def across(tree):
    """The same values, in memory column by column."""
    return keras.tree.map_structure(lambda a: a if a is None else np.asfortranarray(a), tree)


@pytest.mark.parametrize("masked", [False, True])
def test_it_does_not_matter_how_arrays_lie_in_memory(masked):
    _, call, (x, mask, weights, states) = engine_call(LSTM, sequences=True)
    mask[1:, 2:4] = not masked
    results = []
    for lying in (lambda tree: tree, across):
        given = x, mask, weights, states
        shown, final, tape = engine.forward(call, *lying(given), taping=True)
        d = engine.backward(tape, lying(np.ascontiguousarray(shown)), lying(final))
        results.append(leaves((shown, final, d)))
    assert_close(*results, 0)


def test_released_tapes_are_made_again():
    _, call, given = engine_call(LSTM)
    results = []
    for released in (False, True):
        shown, final, number = kept.numbered_forward(call, True, *given)
        assert kept.waiting.bytes > 0
        if released:
            fastrnn.release_memory()
            assert kept.waiting.bytes == 0
        results.append(leaves(kept.numbered_backward(call, number, *given, shown, final)))
        assert kept.waiting.bytes == 0
    assert_close(*results, 0)


def goes_on_in_a_child(number):
    """Whether a child has a copy of its parent's tape, and keeps others, under further numbers."""
    _, call, given = engine_call(LSTM)
    there = kept.waiting.take(number) is not None and kept.waiting.take(number) is None
    return there and int(kept.numbered_forward(call, True, *given)[2]) > number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.skipif(BACKEND not in ("numpy", "torch"), reason="others' threads do not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_keeps_tapes_of_its_own():
    _, call, given = engine_call(LSTM)
    number = int(kept.numbered_forward(call, True, *given)[2])
    child = os.fork()
    if child == 0:
        os._exit(0 if goes_on_in_a_child(number) else 1)
    until = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.01)
    if ended == (0, 0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    assert kept.waiting.take(number) is not None
