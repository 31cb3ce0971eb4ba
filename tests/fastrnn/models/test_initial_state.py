"""States that begin from parameters: wherever none is given, and with gradients."""

import ctypes
import pickle
import shutil

import numba
import numpy as np
import pytest

import fastrnn
import fastrnn.cells
from cases import as_state, problem, states
from fastrnn.equations import EquationError
from fastrnn.export import export

RESET = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)


def learned(make, *sizes, **arguments):
    """A layer whose states begin from parameters that are not zero."""
    layer = make(*sizes, **{"seed": 0, "dtype": "float64", "initial_state": "learned"} | arguments)
    draw = np.random.default_rng(7)
    starts = {n: v for n, v in layer.parameters.items() if n.startswith("initial_")}
    assert starts
    assert not any(value.any() for value in starts.values())  # until they are learned
    layer.update({name: draw.normal(size=value.shape) for name, value in starts.items()})
    return layer


def plain(layer):
    """The same layer, whose states begin from zeros."""
    other = type(layer)(**{**layer.config(), "initial_state": "zeros"})
    other.load_state_dict(
        {n: v for n, v in layer.parameters.items() if not n.startswith("initial_")}
    )
    return other


def start_of(layer, B):
    """What its states begin from, as a state that is given."""
    suffixes = [f"_l{k}{d}" for k in range(layer.num_layers) for d in ("", "_reverse")]
    found = []
    for state in layer._cell.states:
        names = [f"initial_{state}{s}" for s in suffixes]
        rows = [layer.parameters[name] for name in names if name in layer.parameters]
        found.append(np.repeat(np.stack(rows)[:, None], B, axis=1))
    return as_state(found)


LAYERS = {
    "LSTM": (fastrnn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 3}),
    "GRU": (fastrnn.GRU, {"batch_first": True}),
    "JANET": (fastrnn.cells.JANET, {"num_layers": 2}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_as_a_state_that_is_given_with_gradients(name):
    """Also of rows that are reset in mid-sequence, and of one without a step."""
    make, options = LAYERS[name]
    layer = learned(make, 2, 5, **options)
    p, other = problem(layer, 4, 3), plain(layer)
    if layer.batch_first:
        p = p.swap()
    arguments = {
        "lengths": np.array([4, 0, 3]), "reset": RESET.T if layer.batch_first else RESET
    }  # fmt: skip
    y, final, tape = layer.forward(p.x, **arguments)
    wanted, wanted_final, wanted_tape = other.forward(p.x, start_of(layer, 3), **arguments)
    assert np.array_equal(y, wanted)
    assert np.array_equal(layer(p.x, **arguments)[0], wanted)
    for mine, its in zip(states(final), states(wanted_final), strict=True):
        assert np.array_equal(mine, its)

    found = layer.backward(tape, p.dy, as_state(p.dstate))
    right = other.backward(wanted_tape, p.dy, as_state(p.dstate))
    assert list(found.parameters) == list(layer.parameters)
    sums = {}
    for state, d in zip(layer._cell.states, states(right.state), strict=True):
        names = [key for key in layer.parameters if key.startswith(f"initial_{state}_")]
        sums |= dict(zip(names, d.sum(axis=1), strict=True))
    for key, value in found.parameters.items():
        assert np.array_equal(value, {**right.parameters, **sums}[key]), key
        assert value.any(), key

    # A state that is given takes its place.
    y, _, tape = layer.forward(p.x, as_state(p.state))
    assert np.array_equal(y, other(p.x, as_state(p.state))[0])
    found = layer.backward(tape, p.dy)
    assert not any(found.parameters[key].any() for key in sums)


def test_single_steps():
    cell, rng = learned(fastrnn.LSTMCell, 2, 5), np.random.default_rng(0)
    other, x = plain(cell), rng.normal(size=(3, 2))
    start = tuple(np.repeat(cell.parameters[f"initial_{n}"][None], 3, axis=0) for n in "hc")
    d = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    for _ in range(3):  # the second call of a shape may be a prepared one
        assert np.array_equal(cell(x), other(x, start))
    new, tape = cell.forward(x)
    _, other_tape = other.forward(x, start)
    assert np.array_equal(new, cell(x))
    found, right = cell.backward(tape, d), other.backward(other_tape, d)
    for name, rows in zip("hc", right.state, strict=True):
        assert np.array_equal(found.parameters[f"initial_{name}"], rows.sum(axis=0))
    unbatched = cell.backward(cell.forward(x[0])[1], (d[0][0], d[1][0]))
    assert np.array_equal(unbatched.parameters["initial_h"], unbatched.state[0])


@numba.njit
def begin_again(handle, X, Y):
    fastrnn.jit.reset(handle)
    return fastrnn.jit.block(handle, X, Y)


def test_streams_and_compiled_code_begin_from_it():
    model = fastrnn.Sequential(learned(fastrnn.LSTM, 2, 5, num_layers=2))
    x = np.random.default_rng(0).normal(size=(6, 2, 2))
    y, final = model(x)
    stream = model.stream(2)
    assert np.array_equal(stream.block(x), y)
    for turn in (0, 1):  # h is in the one place of the two or in the other
        stream.block(x[: 1 + turn])
        stream.reset()
        assert np.array_equal(stream.block(x), y)
        stream.block(x[: 1 + turn])
        out = np.empty_like(y)
        assert begin_again(stream.handle, x, out) == 0
        assert np.array_equal(out, y)
    before = stream.state
    stream.reset([1])
    starts = start_of(model.modules[0], 2)
    for mine, old, start in zip(stream.state[0], before[0], starts, strict=True):
        assert np.array_equal(mine[:, 0], old[:, 0])
        assert np.array_equal(mine[:, 1], start[:, 1])
    stream.state = None
    assert np.array_equal(stream.block(x), y)
    assert np.array_equal(stream.state[0][0], final[0][0])

    model.update({"0.initial_h_l1": np.zeros(5)})
    stream.reset()
    assert np.array_equal(stream.block(x), y)  # as it was when the stream was made
    stream.refresh()
    stream.reset()
    assert np.array_equal(stream.block(x), model(x)[0])
    assert not np.array_equal(model(x)[0], y)


def test_files_and_copies_have_it(tmp_path):
    layer = learned(fastrnn.GRU, 2, 5, bidirectional=True)
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    layer.save(tmp_path / "gru.safetensors")
    assert fastrnn.GRU(2, 5).description().find("initial") == -1  # as files always were
    for other in (fastrnn.load(tmp_path / "gru.safetensors"), pickle.loads(pickle.dumps(layer))):
        assert other.config() == layer.config()
        assert np.array_equal(other(x)[0], layer(x)[0])


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_reset_in_c(tmp_path):
    layer = learned(fastrnn.LSTM, 2, 5, num_layers=2)
    x = np.random.default_rng(0).normal(size=(6, 1, 2))
    export(layer, tmp_path, name="amp")
    assert "from a state of the model's" in (tmp_path / "amp.h").read_text()
    library = ctypes.CDLL(str(next(tmp_path.glob("libamp.[sd]*"))))
    state = ctypes.create_string_buffer(b"\xa5" * library.amp_state_size(), 1 << 16)
    y = np.empty((6, 1, 5))
    pointers = state, x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p)
    for _ in range(2):
        assert library.amp_reset(state) == 0
        assert library.amp_block(*pointers, ctypes.c_size_t(6)) == 0
        assert np.array_equal(y, layer(x)[0])


def test_bad_choices():
    with pytest.raises(ValueError, match="initial_state is 'random', wanted"):
        fastrnn.LSTM(2, 5, initial_state="random")
    with pytest.raises(TypeError, match="initial_state"):
        fastrnn.Linear(2, 5, initial_state="learned")
    with pytest.raises(EquationError, match=r"'initial_h': initial_.* are what states begin from"):
        fastrnn.cell(gates="h", per_unit="initial_h")
