"""Streams give what the layer gives, to the last bit, step by step and in blocks of any sizes."""

import numpy as np
import pytest

import fastrnn
import fastrnn_kernels.cpu.stream.steps as stream_module
from cases import (
    CELLS,
    DTYPES,
    TOLERANCE,
    as_state,
    assert_close,
    expected,
    make,
    make_cell,
    problem,
    states,
)
from fastrnn_kernels.cpu.threads import pool as threads_module


def assert_same_state(stream, state):
    for mine, its in zip(states(stream.state), states(state), strict=True):
        np.testing.assert_array_equal(mine, its, strict=True)


def follow(stream, x, pieces):
    """Take x (T, ...) through a stream: 1 is a step, any other number a block."""
    outputs, t = [], 0
    for many in pieces:
        if many == 1:
            outputs.append(stream.step(x[t])[None].copy())
        else:
            outputs.append(stream.block(x[t : t + many]))
        t += many
    assert t == len(x)
    return np.concatenate(outputs)


#: Layers of all kinds and odd sizes: sizes, arguments, batch. One unit; less than a vector;
#: a panel and a bit; sums of more than one chain; stacks; rows of several tiles. Each takes seconds
#: to compile: all cells in rows of several tiles; else sums that are late and together, and those
#: that are apart where there is more than one vector, or chain, of them.
GRID = [
    (cell, sizes, arguments, B)
    for sizes, arguments, B, cells in (
        ((1, 1), {}, 1, ["RNN-tanh", "GRU-reset-before"]),
        ((5, 7), {"bias": False}, 1, ["GRU", "GRU-reset-before"]),
        ((3, 65), {}, 1, ["GRU", "GRU-reset-before"]),
        ((131, 140), {}, 1, ["GRU", "GRU-reset-before"]),
        ((4, 33), {"num_layers": 3}, 2, ["GRU-reset-before"]),
        ((5, 17), {}, 13, CELLS),
    )
    for cell in cells
]


@pytest.mark.parametrize(("cell", "sizes", "arguments", "B"), GRID)
def test_blocks_and_steps_equal_the_layer(cell, sizes, arguments, B):
    layer = make(cell, *sizes, **arguments)
    p = problem(layer, 11, B)
    y, last = layer(p.x, as_state(p.state))
    assert_close(y, expected(cell, layer, p)[0], TOLERANCE["float32"])
    stream = layer.stream(B)
    for pieces in ([11], [1] * 11, [1, 4, 0, 1, 3, 2]):
        stream.state = as_state(p.state)
        np.testing.assert_array_equal(follow(stream, p.x, pieces), y, strict=True)
        assert_same_state(stream, last)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "RNN-relu"])
def test_float64(cell):
    layer = make(cell, 5, 21, dtype="float64")
    p = problem(layer, 9, 1)
    y, last = layer(p.x, as_state(p.state))
    stream = layer.stream()
    stream.state = as_state(p.state)
    np.testing.assert_array_equal(follow(stream, p.x, [1, 3, 1, 4]), y, strict=True)
    assert_same_state(stream, last)


@pytest.mark.parametrize(("H", "P", "B"), [(7, 3, 1), (90, 65, 2)])
def test_projected_lstm(H, P, B):
    layer = make("LSTM", 6, H, num_layers=2, proj_size=P)
    p = problem(layer, 7, B)
    y, last = layer(p.x, as_state(p.state))
    stream = layer.stream(B)
    stream.state = as_state(p.state)
    np.testing.assert_array_equal(follow(stream, p.x, [1, 2, 1, 3]), y, strict=True)
    assert_same_state(stream, last)


@pytest.mark.smoke
@pytest.mark.parametrize("cell", CELLS)
def test_cells_stream(cell):
    one = make_cell(cell, 5, 7)
    x = np.random.default_rng(0).standard_normal((6, 1, 5), dtype=np.float32)
    stream, state = one.stream(), None
    for row in x:
        state = one(row, state)
        np.testing.assert_array_equal(stream.step(row), states(state)[0], strict=True)
    assert_same_state(stream, state)


def test_a_row_of_one_stream_has_no_batch_axis():
    layer = make("LSTM", 5, 7)
    x = np.random.default_rng(0).standard_normal((8, 5), dtype=np.float32)
    y, _ = layer(x)
    stream = layer.stream()
    steps = [stream.step(row).copy() for row in x]
    np.testing.assert_array_equal(np.stack(steps), y, strict=True)
    stream.reset()
    np.testing.assert_array_equal(stream.block(x), y, strict=True)
    stream.reset()
    assert stream.step(x[:1]).shape == (1, 7)


def test_the_output_is_the_same_array_each_time_or_the_one_given():
    stream = make("GRU", 5, 7).stream(2)
    x = np.ones((2, 5), np.float32)
    first = stream.step(x)
    before = first.copy()
    assert stream.step(x) is first
    assert not np.array_equal(before, first)
    out = np.full((2, 7), np.nan, np.float32)
    assert stream.step(x, out=out) is out
    assert np.isfinite(out).all()
    outs = np.full((3, 2, 7), np.nan, np.float32)
    assert stream.block(np.ones((3, 2, 5), np.float32), out=outs) is outs
    assert np.isfinite(outs).all()


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 5)])
def test_the_output_is_an_array_to_keep_if_a_copy_is_asked_for(shape):
    layer = make("GRU", 5, 7)
    stream = layer.stream(shape[0] if len(shape) > 1 else 1)
    X = np.random.default_rng(0).standard_normal((6, *shape), dtype=np.float32)
    wanted = stream.block(X)
    stream.reset()
    kept = [stream.step(x, copy=True) for x in X]
    np.testing.assert_array_equal(np.stack(kept), wanted, strict=True)
    stream.reset()
    kept = [stream.step(np.repeat(x, 2, -1)[..., ::2], copy=True) for x in X]
    np.testing.assert_array_equal(np.stack(kept), wanted, strict=True)
    stream.reset()
    same = [stream.step(x, copy=False) for x in X]
    assert all(one is same[0] for one in same)
    out = np.empty((*shape[:-1], 7), np.float32)
    stream.reset()
    assert stream.step(X[0], out, copy=False) is out
    np.testing.assert_array_equal(out, wanted[0])


@pytest.mark.parametrize("shift", [0, 7, 2])
def test_a_block_may_be_written_over_its_input(shift):
    """In place, or over a part of it: a step's input is read before its output is written."""
    layer = make("RNN-tanh", 7, 7)
    memory = np.random.default_rng(0).standard_normal(20 * 7, dtype=np.float32)
    X, out = memory[7 : 7 + 84].reshape(12, 7), memory[7 - shift : 7 - shift + 84].reshape(12, 7)
    wanted, _ = layer(X.copy())
    layer.stream().block(X, out=out)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize(("I", "H"), [(3, 5), (5, 3)])
def test_a_block_may_begin_where_its_input_does(I, H):
    layer = make("RNN-tanh", I, H)
    memory = np.random.default_rng(0).standard_normal(100, dtype=np.float32)
    X, out = memory[: 12 * I].reshape(12, I), memory[: 12 * H].reshape(12, H)
    wanted, _ = layer(X.copy())
    np.testing.assert_array_equal(layer.stream().block(X, out=out), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_of_any_layout(dtype):
    layer = make("LSTM", 5, 7, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((6, 2, 10)).astype(dtype)
    wanted, _ = layer(np.ascontiguousarray(x[:, :, ::2]))
    stream = layer.stream(2)
    np.testing.assert_array_equal(stream.block(x[:, :, ::2]), wanted)
    stream.reset()
    for t, row in enumerate(x):
        np.testing.assert_array_equal(stream.step(row[:, ::2]), wanted[t])
    stream.reset()
    fixed = np.ascontiguousarray(x[:, :, ::2])
    fixed.flags.writeable = False
    for t, row in enumerate(fixed):
        np.testing.assert_array_equal(stream.step(row), wanted[t])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    ("cell", "B", "arguments"),
    [
        ("LSTM", 1, {"num_layers": 2, "proj_size": 30}),
        ("GRU-reset-before", 1, {"num_layers": 2}),
        ("GRU", 7, {}),
        ("RNN-relu", 1, {}),
    ],
)
def test_a_step_shared_by_threads_gives_the_same(cell, B, arguments, threads, monkeypatch):
    """Units are shared out, and members wait for each other at each layer; any work will do."""
    for name, where in (("MEMBER_WORK", stream_module), ("WAKING_WORK", threads_module)):
        monkeypatch.setattr(where, name, 1)
    layer = make(cell, 20, 70, **arguments)
    x = np.random.default_rng(0).standard_normal((40, B, 20), dtype=np.float32)
    y, last = layer(x)
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(threads)
        stream = layer.stream(B)
        np.testing.assert_array_equal(follow(stream, x, [1] * 20 + [20]), y, strict=True)
        assert_same_state(stream, last)
    finally:
        fastrnn.set_num_threads(before)


def test_deep_stacks():
    layer = make("RNN-tanh", 2, 3, num_layers=9)
    x = np.random.default_rng(0).standard_normal((5, 1, 2), dtype=np.float32)
    np.testing.assert_array_equal(layer.stream().block(x), layer(x)[0])
