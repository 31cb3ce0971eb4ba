"""The cells of `fastrnn.cells`: values, gradients, streams, files, as for RNN, LSTM and GRU."""

import json
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import cases
import fastrnn
import fastrnn.cells
import gradients
import reference
from cases import TOLERANCE, as_state, assert_close, expected, problem, states
from fastrnn.cells import FILES
from fastrnn_kernels.cpu.threads import pool
from steps_of_cells import MORE_STATES, STEPS, inputs, sums

#: Those that bend where a sum is 0 have no differences there.
BENT = {"IndRNN", "MinGRULog", "MinLSTMLog", "SLSTM"}
#: Kernels are compiled for one type of each cell, some of them for both: compiling is what takes
#: the time here. Gradients are those of float64.
IN_FLOAT32 = {"PeepholeLSTM", "MinGRU", "MGU", "SLSTM"}


@pytest.fixture(autouse=True)
def grids(monkeypatch):
    """The tests' tables know these cells, too."""
    for name in FILES:
        monkeypatch.setitem(cases.CELLS, name, (name, {}))
        monkeypatch.setitem(reference.STEPS, name, STEPS[name])
    for name, count in MORE_STATES.items():
        monkeypatch.setitem(reference.MORE_STATES, name, count)


def type_of(name):
    return "float32" if name in IN_FLOAT32 else "float64"


def make(name, *sizes, **arguments):
    given = {"seed": 0, "dtype": type_of(name)} | arguments
    return getattr(fastrnn.cells, name)(*sizes, **given)


def normal(name, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(type_of(name))


def test_every_cell_is_here():
    assert set(STEPS) == set(FILES) == set(fastrnn.cells.__all__)
    folder = Path(fastrnn.cells.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(FILES.values())


@pytest.mark.parametrize("name", FILES)
def test_its_file_is_short_and_cites_its_paper(name):
    cell = getattr(fastrnn.cells, name)
    path = Path(fastrnn.cells.__file__).parent / f"{FILES[name]}.py"
    lines = path.read_text(encoding="utf-8").count("\n") // list(FILES.values()).count(FILES[name])
    assert lines <= 40
    assert "Sec. " in cell.__doc__ or "appendix" in cell.__doc__


@pytest.mark.smoke
@pytest.mark.parametrize("name", FILES)
def test_derivatives(name):
    assert getattr(fastrnn.cells, name).check().passed


@pytest.mark.parametrize(
    ("T", "B", "I", "H", "options"),
    [
        (5, 3, 4, 7, {"num_layers": 2, "bidirectional": True}),
        (1, 1, 1, 1, {}),
        (9, 40, 3, 33, {"bias": False}),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_values(name, T, B, I, H, options):
    dtype = type_of(name)
    layer = make(name, I, H, **options)
    p = problem(layer, T, B)
    lengths = None if T == 1 else np.arange(B) % (T + 1)
    y, final = layer(p.x, as_state(p.state), lengths=lengths)
    wanted, wanted_final, _ = expected(name, layer, p, lengths=lengths)
    assert_close(y, wanted, TOLERANCE[dtype], "y")
    for mine, its in zip(states(final), wanted_final, strict=True):
        assert_close(mine, its, TOLERANCE[dtype], "state")


@pytest.mark.parametrize("variant", gradients.VARIANTS)
@pytest.mark.parametrize("name", FILES)
def test_gradients(name, variant):
    options = dict(gradients.VARIANTS[variant])
    arguments = {key: options.pop(key) for key in ("lengths", "reset") if key in options}
    sizes = gradients.I, gradients.H
    layer = make(name, *sizes, **options, dtype="float64")
    p = problem(layer, gradients.T, gradients.B, seed=6)
    if name in BENT:
        _far_from_bends(name, layer, p, arguments)
    gradients.check(name, layer, p, **arguments)


def _far_from_bends(name, layer, p, arguments):
    """Take inputs and parameters of a kind for which no sum comes near 0 as it is moved."""
    margins = []

    def noted(w, x, state):
        a = inputs(w, x, state[0])
        if name == "IndRNN":
            bend = a[0] + w["u"] * state[0]
        elif name == "SLSTM":
            i, f, _, _ = sums(w, x, state[0])
            bend = np.log(reference.sigmoid(f)) + state[3] - i
        else:
            bend = a[-1]
        margins.append(np.abs(bend).min())
        return STEPS[name](w, x, state)

    for seed in range(100):
        fresh = problem(layer, gradients.T, gradients.B, seed=seed)
        if name == "SLSTM":  # c is divided by n, which is positive
            fresh.state[2][:] = 1 + np.abs(fresh.state[2])
        margins.clear()
        with mock.patch.dict(reference.STEPS, {name: noted}):
            expected(name, layer, fresh, **arguments)
        if min(margins) > 1e-3:
            p.x, p.state, p.dy, p.dstate = fresh.x, fresh.state, fresh.dy, fresh.dstate
            return
    raise AssertionError("no seed is far from bends")


@pytest.mark.parametrize("name", FILES)
def test_streams_are_the_sequence_bit_for_bit(name, tmp_path):
    layer = make(name, 4, 9, num_layers=2)
    x = normal(name, 12, 2, 4)
    y, final = layer(x)
    stream = layer.stream(2)
    assert np.array_equal(np.stack([stream.step(row).copy() for row in x[:5]]), y[:5])
    snapshot = stream.snapshot()
    assert np.array_equal(stream.block(x[5:]), y[5:])
    for mine, its in zip(states(stream.state), states(final), strict=True):
        assert np.array_equal(mine, its)
    stream.restore(pickle.loads(pickle.dumps(snapshot)))
    assert np.array_equal(stream.block(x[5:]), y[5:])
    stream.reset()
    assert np.array_equal(stream.block(x), y)


@pytest.mark.parametrize("name", FILES)
def test_threads_and_batches_change_no_bit(name, monkeypatch):
    monkeypatch.setattr(pool, "MIN_WORK", 1)  # so that two threads share one row, too
    layer = make(name, 16, 48)
    x, dy = normal(name, 20, 37, 16), normal(name, 20, 37, 48, seed=1)
    before = fastrnn.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            fastrnn.set_num_threads(threads)
            y, _, tape = layer.forward(x)
            row, _, of_row = layer.forward(x[:, 5:6])
            assert np.array_equal(row, y[:, 5:6])
            found.append((y, layer.backward(tape, dy), layer.backward(of_row, dy[:, 5:6])))
    finally:
        fastrnn.set_num_threads(before)
    (y, *gradients), (other_y, *others) = found
    assert np.array_equal(y, other_y)
    for one, other in zip(gradients, others, strict=True):
        assert np.array_equal(one.x, other.x)
        for key, value in one.parameters.items():
            assert np.array_equal(value, other.parameters[key]), key


@pytest.mark.parametrize("name", FILES)
def test_single_steps(name):
    cell = getattr(fastrnn.cells, name).Cell(3, 5, seed=1, dtype="float64")
    layer = make(name, 3, 5, dtype="float64")
    layer.load_state_dict({f"{key}_l0": value for key, value in cell.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((1, 2, 3))
    new, tape = cell.forward(x[0])
    y, _, whole = layer.forward(x)
    assert np.array_equal(states(new)[0], y[0])
    d = as_state([np.ones_like(part) for part in states(new)])
    mine = cell.backward(tape, d)
    its = layer.backward(whole, None, as_state([part[None] for part in states(d)]))
    for key, value in mine.parameters.items():
        np.testing.assert_allclose(value, its.parameters[f"{key}_l0"], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", FILES)
def test_files_by_name(name, tmp_path):
    layer = make(name, 3, 5, num_layers=2, bidirectional=True)
    head = fastrnn.Linear(5, 2, dtype=type_of(name))
    model = fastrnn.Sequential(make(name, 3, 5), head)
    for one, file in ((layer, "layer.safetensors"), (model, "model.safetensors")):
        one.save(tmp_path / file)
        found = fastrnn.load(tmp_path / file)
        assert found.config() == one.config()
        for key, value in one.parameters.items():
            assert np.array_equal(found.parameters[key], value)


def test_a_file_of_other_equations_is_refused(tmp_path):
    layer = make("JANET", 3, 5)
    layer.save(tmp_path / "janet.safetensors")
    data = (tmp_path / "janet.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    description = json.loads(header["__metadata__"]["fastrnn"])
    digest = description["config"]["equations"]
    assert len(digest) == 16
    other = data.replace(digest.encode(), digest[::-1].encode())
    (tmp_path / "other.safetensors").write_bytes(other)
    with pytest.raises(ValueError, match=r"JANET had other equations .* define it as it was"):
        fastrnn.load(tmp_path / "other.safetensors")
