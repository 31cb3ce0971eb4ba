"""R made of blocks: the results of a dense R that has zeros between its blocks."""

import ctypes
import pickle
import shutil
from unittest import mock

import numpy as np
import pytest

import fastrnn
import fastrnn.cells
import reference
import steps_of_cells
from cases import as_state, assert_close, problem, states
from fastrnn.export import export

#: H of three blocks is 11 units: no panel holds whole ones.
CASES = {
    "LSTM": (fastrnn.LSTM, 33, 3, {"num_layers": 2, "bidirectional": True}),
    "GRU": (fastrnn.GRU, 6, 2, {"bias": False}),
    "RNN": (fastrnn.RNN, 8, 8, {}),
    "SLSTM": (fastrnn.cells.SLSTM, 4, 2, {}),
}
LENGTHS, RESET = np.array([4, 0, 3]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)


def made(name, **arguments):
    make, H, n, options = CASES[name]
    return make(2, H, **{"seed": 0, "dtype": "float64", "blocks": n} | options | arguments)


def whole(matrix, n):
    """Blocks (..., GH H, H / n) -> R (..., GH H, H)."""
    *more, rows, width = matrix.shape
    gates = matrix.reshape(*more, -1, n, width, width)
    found = np.zeros((*more, gates.shape[len(more)], n, width, n, width))
    for k in range(n):
        found[..., k, :, k, :] = gates[..., k, :, :]
    return found.reshape(*more, rows, n * width)


def dense(parameters, n):
    return {k: whole(v, n) if "weight_hh" in k else v for k, v in parameters.items()}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    _, H, n, _ = CASES[name]
    layer = made(name)
    p = problem(layer, 4, 3)
    arguments = {"lengths": LENGTHS, "reset": RESET}
    y, final, tape = layer.forward(p.x, as_state(p.state), **arguments)
    found = layer.backward(tape, p.dy, as_state(p.dstate))
    parameters = layer.state_dict()
    assert parameters["weight_hh_l0"].shape[1] == H // n
    start = {f"state {k}": part for k, part in enumerate(p.state)}

    def computed(given):
        state = tuple(given[key] for key in start)
        return reference.layer(name, dense(given, n), given["x"], state, **arguments)

    def loss(given):
        values, last, _ = computed(given)
        return reference.inner((values, *last), (p.dy, *p.dstate))

    with (
        mock.patch.dict(reference.STEPS, steps_of_cells.STEPS),
        mock.patch.dict(reference.MORE_STATES, steps_of_cells.MORE_STATES),
    ):
        given = {"x": p.x} | start | parameters
        wanted, last, _ = computed(given)
        assert_close(y, wanted, 1e-13, "y")
        for mine, its in zip(states(final), last, strict=True):
            assert_close(mine, its, 1e-13, "state")
        moved = given if H < 10 else {key: given[key] for key in ("x", "state 0")}
        wanted = reference.finite_differences(lambda one: loss(given | one), moved)
    gradients = dict(zip(start, states(found.state), strict=True)) | {"x": found.x}
    gradients |= found.parameters
    for key, gradient in wanted.items():
        assert_close(gradients[key], gradient, 1e-8, key)
    if H < 10:
        return
    # Of as many parameters: the dense layer's gradients, which have tests of their own.
    other = made(name, blocks=1)
    other.load_state_dict(dense(parameters, n))
    _, _, tape = other.forward(p.x, as_state(p.state), **arguments)
    right = other.backward(tape, p.dy, as_state(p.dstate)).parameters
    inside = whole(np.ones_like(parameters["weight_hh_l0"]), n) > 0
    for key, gradient in found.parameters.items():
        wanted = right[key]
        if "weight_hh" in key:
            gradient, wanted = whole(gradient, n)[inside], wanted[inside]
        assert_close(gradient, wanted, 1e-12, key)


def test_threads_checkpoints_and_streams_have_the_same_bits():
    threads = fastrnn.get_num_threads()
    layer = made("LSTM", dtype="float32", bidirectional=False)
    x, dy = (
        np.random.default_rng(k).normal(size=(7, 3, w)).astype("f4") for k, w in ((0, 2), (1, 33))
    )
    found = []
    try:
        for many, every in ((1, None), (2, None), (2, 3)):
            fastrnn.set_num_threads(many)
            y, _, tape = layer.forward(x, checkpoint=every)
            gradients = layer.backward(tape, dy)
            found.append([y, gradients.x, *gradients.parameters.values()])
    finally:
        fastrnn.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(np.array_equal, found[0], other))
    stream = layer.stream(3)
    assert np.array_equal(np.concatenate([stream.block(x[:3]), [stream.step(x[3])]]), y[:4])
    alone = layer.stream(1)
    assert np.array_equal([alone.step(row)[0].copy() for row in x[:, :1]], y[:, 0])
    # Products of pairs: those of bfloat16 begin at an even row.
    low = made("LSTM", dtype="bfloat16", bidirectional=False)
    low.load_state_dict(layer.state_dict())
    assert_close(low(x)[0], y, 0.02)
    assert_close(low.stream(3).block(x), y, 0.02)
    assert_close(layer.stream(3, weights="int8").block(x), y, 0.02)


def test_files_copies_single_steps_and_c(tmp_path):
    layer = made("GRU")
    x = np.random.default_rng(0).normal(size=(4, 1, 2))
    y, _ = layer(x)
    layer.save(tmp_path / "gru.safetensors")
    assert fastrnn.GRU(2, 6).description().find("blocks") == -1  # as files always were
    for other in (fastrnn.load(tmp_path / "gru.safetensors"), pickle.loads(pickle.dumps(layer))):
        assert other.config() == layer.config()
        assert np.array_equal(other(x)[0], y)
    with pytest.raises(ValueError, match="blocks=2, which is for fastrnn's own format"):
        layer.save(tmp_path / "gru.onnx")
    cell = fastrnn.GRUCell(2, 6, bias=False, dtype="float64", blocks=2)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.parameters.items()})
    assert np.array_equal(cell(x[0]), y[0])
    if shutil.which("cc") is not None:
        export(layer, tmp_path, name="gru")
        library = ctypes.CDLL(str(next(tmp_path.glob("libgru.[sd]*"))))
        state, out = (
            ctypes.create_string_buffer(library.gru_state_size(), 1 << 16),
            np.empty_like(y),
        )
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, out)]
        assert library.gru_reset(state) == 0
        assert library.gru_block(state, *pointers, ctypes.c_size_t(4)) == 0
        assert np.array_equal(out, y)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (fastrnn.LSTM, {"blocks": 3}, "blocks is 3, wanted a divisor of hidden_size = 8"),
        (fastrnn.GRUCell, {"blocks": 0}, "blocks is 0"),
        (fastrnn.LSTM, {"blocks": 2, "proj_size": 4}, "wanted 1 with proj_size = 4"),
        (fastrnn.GRU, {"blocks": 2, "reset_after": False}, "another value in place of h in n"),
        (fastrnn.cells.MinGRU, {"blocks": 2}, "no gate of this MinGRU multiplies h"),
    ],
)
def test_what_cannot_have_blocks(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(2, 8, **arguments)
