"""What own cells have that the grids do not ask: run by `test_own_cells.py`."""

import ctypes
import shutil

import numpy as np
import pytest

import fastrnn
from cases import as_state, assert_close, make, problem, run, states
from fastrnn.export import export
from fastrnn_kernels.cpu.sequence import packs, stacks, stacks_backward
from fastrnn_kernels.cpu.sequence.stacks import Stacked
from fastrnn_kernels.cpu.sequence.stacks_backward import TIME_FIRST, Wanted
from gradients import check
from own_cells import OWN, PEEPHOLE_LSTM

T, B, I, H = 5, 3, 4, 19


@pytest.fixture(params=OWN)
def kind(request):
    return request.param


def test_parameters_have_names_of_their_own(kind, tmp_path):
    cell, *_ = OWN[kind]
    layer = make(kind, I, H, 2, bidirectional=True)
    for name in cell.per_unit:
        for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
            assert layer.parameters[name + suffix].shape == (H,)
            assert layer.parameters[name + suffix].any()
    layer.save(tmp_path / "model.safetensors")
    found = fastrnn.load(tmp_path / "model.safetensors")
    assert found.parameters.keys() == layer.parameters.keys()
    p = problem(layer, T, B)
    wanted = run(layer, p)
    np.testing.assert_array_equal(found(p.x, as_state(p.state))[0], wanted.y)
    name = list(layer.parameters)[-1]
    layer.update({name: 2 * layer.parameters[name] + 1})
    assert not np.array_equal(layer(p.x, as_state(p.state))[0], wanted.y)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [*((kind, None) for kind in OWN), ("PeepholeGRU", "int8"), ("MinGRU", "bf16")],
)
def test_streams(kind, weights):
    layer = make(kind, I, H, 2)
    x = problem(layer, T, B).x
    stream = layer.stream(B, weights=weights)
    once = stream.block(x)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(one).copy() for one in x]), once)
    if weights is None:
        np.testing.assert_array_equal(once, layer(x)[0])
    else:
        assert_close(once, layer(x)[0], 0.05)
    name = list(layer.parameters)[-1]
    layer.update({name: 2 * layer.parameters[name] + 1})
    stream.refresh()
    stream.reset()
    changed = stream.block(x)
    assert np.abs(changed - once).max() > 1e-3
    if weights is None:
        np.testing.assert_array_equal(changed, layer(x)[0])


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_exported_code(kind, tmp_path):
    layer = make(kind, I, H, 2)
    x = problem(layer, T, 1).x
    files = {file.suffix: file for file in export(layer, tmp_path, name="voice")}
    library = ctypes.CDLL(str(files[".so"]))
    library.voice_state_size.restype = ctypes.c_size_t
    state = ctypes.create_string_buffer(library.voice_state_size())
    y = np.empty((T, 1, H), np.float32)
    for _ in range(2):
        assert library.voice_reset(state) == 0
        assert library.voice_block(state, x.ctypes, y.ctypes, ctypes.c_size_t(T)) == 0
        np.testing.assert_array_equal(y, layer(x)[0])


def _addresses(arrays):
    return [one.__array_interface__["data"][0] for one in arrays]


@pytest.mark.parametrize("bias", [False, True])
def test_prepared_calls(kind, bias):
    """What recipes of a stack give, the weights packed by one, too."""
    cell, *_ = OWN[kind]
    layer = make(kind, I, H, 2, bias=bias, bidirectional=True)
    p = problem(layer, T, B)
    wanted = run(layer, p)
    of = Stacked(cell, T, B, I, H, H, 2, 2, "float32", bias, False)
    given = [*layer.parameters.values()]
    made = packs.pack(of, True, True).run(_addresses(given))
    ahead = stacks.forward(of, True)
    y, final = np.empty_like(wanted.y), [np.empty_like(one) for one in wanted.state]
    tape = np.empty(ahead.tape_bytes + 64, np.uint8)
    tape = tape[-tape.ctypes.data % 64 :]
    panels = made.panels(packs.FORWARD)
    ahead.recipe.run(_addresses([p.x, *p.state]) + panels + _addresses([y, *final, tape]))
    np.testing.assert_array_equal(y, wanted.y)
    for mine, its in zip(final, wanted.state, strict=True):
        np.testing.assert_array_equal(mine, its)

    back = stacks_backward.backward(of, Wanted(TIME_FIRST, True, True, True))
    dx, d_start = np.empty_like(p.x), [np.empty_like(one) for one in p.state]
    gradients = [np.empty_like(one) for one in given]
    panels = made.panels(packs.BACKWARD) + made.panels(packs.INPUTS)
    results = _addresses([dx, *d_start, *gradients])
    back.run(_addresses([tape, p.x, p.dy, *p.dstate]) + panels + results)
    np.testing.assert_array_equal(dx, wanted.dx)
    for mine, its in zip(d_start, wanted.dstate, strict=True):
        np.testing.assert_array_equal(mine, its)
    for mine, (name, its) in zip(gradients, wanted.parameters.items(), strict=True):
        np.testing.assert_array_equal(mine, its, err_msg=name)


class Projected(fastrnn.LSTM):
    """An LSTM with peepholes and a projection."""

    @property
    def _cell(self):
        return PEEPHOLE_LSTM


def test_a_projection_leaves_parameters_per_unit_as_wide_as_units():
    layer = Projected(I, 7, 2, proj_size=3, bidirectional=True, dtype="float64", seed=0)
    assert layer.parameters["p_i_l1"].shape == (7,)
    check("PeepholeLSTM", layer, problem(layer, 3, 2))
    one = Projected(I, H, 2, proj_size=7, seed=0)
    p = problem(one, T, B)
    stream = one.stream(B)
    stream.state = p.state
    np.testing.assert_array_equal(stream.block(p.x), one(p.x, p.state)[0])


def test_rows_add_up_in_one_order():
    """A row's part of the gradients does not depend on who else is in the batch."""
    layer = make("PeepholeLSTM", I, H, dtype="float64")
    p = problem(layer, T, 300)
    whole = run(layer, p).parameters
    parts = []
    for b in range(0, 300, 30):
        rows = slice(b, b + 30)
        _, _, tape = layer.forward(p.x[:, rows], tuple(s[:, rows] for s in p.state))
        dstate = tuple(d[:, rows] for d in p.dstate)
        parts.append(layer.backward(tape, p.dy[:, rows], dstate).parameters)
    for name in ("p_i_l0", "p_f_l0", "p_o_l0"):
        assert_close(whole[name], sum(part[name] for part in parts), 1e-12, name)


def test_state_has_no_more_than_states(kind):
    layer = make(kind, I, H)
    stream = layer.stream(B)
    assert len(states(stream.state)) == len(states(layer(problem(layer, T, B).x)[1]))
