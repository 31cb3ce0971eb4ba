"""Streams on the GPU, on Numba's simulator: values, state, errors."""

from dataclasses import replace

import numpy as np
import pytest
from numba import config

import fastrnn
from cases import CELLS, as_state, assert_close, expected, make, problem, states

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

T, B, I, H = 5, 3, 3, 4


def layer_of(cell="LSTM", **options):
    return make(cell, I, H, dtype="float64", device="cuda", **options)


def copied(state):
    return [np.array(one) for one in states(state)]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bias": False}])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_the_sequence(cell, options):
    layer = layer_of(cell, **options)
    p = problem(layer, T, B)
    wanted, wanted_final, _ = expected(cell, layer, p)
    stream = layer.stream(B)
    stream.state = as_state(p.state)
    for t in range(T):
        # Plain Python rounds as the reference does; sums in another order.
        assert_close(stream.step(p.x[t]), wanted[t], 1e-12, f"y at {t}")
    assert stream._steps.graph.recorded
    for mine, its in zip(states(stream.state), wanted_final, strict=True):
        assert_close(mine, its, 1e-12, "state")


def test_a_learned_start():
    """In calls, with gradients, and after each reset."""
    layer = layer_of(num_layers=2, initial_state="learned")
    draw = np.random.default_rng(7)
    names = [name for name in layer.parameters if name.startswith("initial_")]
    layer.update({name: draw.normal(size=H) for name in names})
    p = problem(layer, T, B)
    start = [
        np.repeat([[layer.parameters[f"initial_{n}_l{k}"]] for k in range(2)], B, axis=1)
        for n in "hc"
    ]
    wanted, _, _ = expected("LSTM", layer, replace(p, state=start))
    y, _, tape = layer.forward(p.x)
    assert_close(y, wanted, 1e-12, "y")
    gradients = layer.backward(tape, p.dy)
    for n, rows in zip("hc", states(gradients.state), strict=True):
        for k in range(2):
            found = gradients.parameters[f"initial_{n}_l{k}"]
            assert_close(found, np.array(rows)[k].sum(axis=0), 1e-12, n)
    stream = layer.stream(B)
    for rows in (None, range(B)):
        assert_close(stream.block(p.x), wanted, 1e-12, "y")
        stream.reset(rows)
    assert_close(stream.block(p.x), wanted, 1e-12, "y")


def test_a_projected_stack():
    layer = layer_of(num_layers=2, proj_size=2)
    p = problem(layer, T, B)
    wanted, _, _ = expected("LSTM", layer, p)
    stream = layer.stream(B)
    stream.state = as_state(p.state)
    assert_close(stream.block(p.x), wanted, 1e-12, "y")
    assert (stream.input_size, stream.output_size) == (I, 2)


@pytest.mark.parametrize("cell", ["RNN-tanh", "LSTM"])
def test_cells(cell):
    kind, options = CELLS[cell]
    one = getattr(fastrnn, f"{kind}Cell")(I, H, device="cuda", dtype="float64", seed=0, **options)
    x = np.random.default_rng(0).standard_normal((2, B, I))
    stream = one.stream(B)
    state = None
    for t in range(2):
        state = one(x[t], state)
        assert_close(stream.step(x[t]), states(state)[0], 1e-12, "h")
    for mine, its in zip(states(stream.state), states(state), strict=True):
        assert_close(mine, its, 1e-12, "state")


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid", "relu"])
def test_a_linear_layer_behind(activation):
    layer = layer_of("GRU", num_layers=1)
    linear = fastrnn.Linear(
        H, 2, activation=activation, bias=activation != "relu", dtype="float64", device="cuda",
        seed=1,
    )  # fmt: skip
    model = fastrnn.Sequential(layer, linear)
    p = problem(layer, T, B)
    h, _, _ = expected("GRU", layer, p)
    a = h @ linear.parameters["weight"].T + linear.parameters.get("bias", 0)
    functions = {
        None: lambda a: a, "tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "relu": lambda a: np.maximum(a, 0),
    }  # fmt: skip
    stream = model.stream(B)
    stream.state = (as_state(p.state),)
    assert_close(stream.block(p.x), functions[activation](a), 1e-12, "y")


def test_blocks_of_any_size_have_the_bits_of_steps():
    layer = layer_of("GRU-reset-before")
    p = problem(layer, T, B)
    one, other = layer.stream(B), layer.stream(B)
    steps = np.stack([one.step(x).copy() for x in p.x])
    blocks = np.concatenate([other.block(p.x[:1]), other.block(p.x[1:1]), other.block(p.x[1:])])
    np.testing.assert_array_equal(steps, blocks)


def test_rows_of_one_and_outputs_of_the_callers():
    layer = layer_of()
    p = problem(layer, T, 1)
    one, other = layer.stream(), layer.stream()
    y = one.step(p.x[0, 0])
    assert y.shape == (H,)
    assert np.shares_memory(y, one.step(p.x[1, 0]))
    out = np.full((1, H), np.nan)
    other.step(p.x[0, 0])
    assert other.step(p.x[1], out=out) is out
    np.testing.assert_array_equal(out[0], y)
    whole = np.full((T - 2, H), np.nan)
    assert one.block(p.x[2:, 0], out=whole) is whole
    np.testing.assert_array_equal(whole, other.block(p.x[2:])[:, 0])


def test_reset_snapshot_restore_and_clients():
    layer = layer_of(num_layers=2)
    p = problem(layer, T, B)
    stream = layer.stream(B)
    stream.step(p.x[0])
    snapshot = stream.snapshot()
    before = copied(stream.state)
    wanted = stream.block(p.x[1:])
    stream.restore(fastrnn.Snapshot.from_bytes(snapshot.to_bytes()))
    for mine, its in zip(states(stream.state), before, strict=True):
        np.testing.assert_array_equal(mine, its)
    np.testing.assert_array_equal(stream.block(p.x[1:]), wanted)

    before = copied(stream.state)
    stream.reset([0, 2])
    for mine, its in zip(states(stream.state), before, strict=True):
        assert not mine[:, [0, 2]].any()
        np.testing.assert_array_equal(mine[:, 1], its[:, 1])
    assert [stream.add_stream() for _ in range(B)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="all 3 rows of this stream are taken"):
        stream.add_stream()
    stream.remove_stream(1)
    assert stream.add_stream() == 1
    stream.state = None
    assert not any(one.any() for one in states(stream.state))


def test_refresh_takes_up_the_parameters_and_keeps_the_state():
    layer = layer_of()
    p = problem(layer, T, B)
    stream = layer.stream(B)
    stream.step(p.x[0])
    state = as_state(copied(stream.state))
    old = stream.snapshot()
    layer.update({"weight_hh_l0": 2 * layer.parameters["weight_hh_l0"]})
    other = layer.stream(B)
    other.state = state
    wanted = other.step(p.x[1])
    assert not np.allclose(stream.step(p.x[1]), wanted)
    stream.restore(old)
    stream.refresh()
    np.testing.assert_array_equal(stream.step(p.x[1]), wanted)
    with pytest.raises(ValueError, match="snapshot is of another model or of other parameters"):
        stream.restore(old)


def test_a_model_that_has_moved_is_told(monkeypatch):
    layer = layer_of()
    stream = layer.stream(B)
    with pytest.raises(RuntimeError, match="runs on the CPU, its model is on the GPU"):
        fastrnn.Stream(layer, B)
    monkeypatch.setitem(layer.__dict__, "device", "cpu")
    with pytest.raises(RuntimeError, match="runs on the GPU, its model is on the CPU"):
        stream.refresh()
    stream.step(np.zeros((B, I)))


def test_warmup_records_and_changes_nothing():
    stream = layer_of().stream(B)
    before = copied(stream.state)
    stream.warmup()
    assert stream._steps.graph.recorded
    for mine, its in zip(states(stream.state), before, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_bad_input_changes_nothing():
    layer = layer_of()
    stream = layer.stream(B)
    stream.step(np.ones((B, I)))
    before = copied(stream.state)
    for x, error, match in (
        (np.zeros((B, I), np.float32), TypeError, "input has dtype float32, this stream takes"),
        (np.zeros((2, I)), ValueError, r"input has shape \(2, 3\), wanted \(B, I\) = \(3, 3\)"),
        (np.zeros(I), ValueError, r"input has shape \(3,\)"),
    ):
        with pytest.raises(error, match=match):
            stream.step(x)
    with pytest.raises(ValueError, match=r"wanted \(T, B, I\) = \(T, 3, 3\)"):
        stream.block(np.zeros((B, I)))
    x = np.zeros((B, I))
    with pytest.raises(ValueError, match="out has shape"):
        stream.step(x, out=np.zeros((B, H + 1)))
    with pytest.raises(TypeError, match="out is a list, wanted a NumPy array, as the input is"):
        stream.step(x, out=[])
    with pytest.raises(ValueError, match="out is not C-contiguous"):
        stream.step(x, out=np.zeros((H, B)).T)
    with pytest.raises(ValueError, match="rows holds 3, wanted 0 to 2"):
        stream.reset(3)
    for mine, its in zip(states(stream.state), before, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_a_second_thread_is_refused():
    stream = layer_of().stream(B)
    with (
        stream._in_use(),
        pytest.raises(RuntimeError, match="another thread is using this stream"),
    ):
        stream.step(np.zeros((B, I)))
    stream.step(np.zeros((B, I)))


def test_what_only_the_cpu_has_is_said():
    layer = layer_of()
    stream = layer.stream(B)
    for name in ("handle", "cfunc", "address"):
        with pytest.raises(RuntimeError, match=f"a stream on the GPU has no {name}"):
            getattr(stream, name)
    with pytest.raises(ValueError, match="is bidirectional and cannot stream"):
        layer_of(bidirectional=True).stream()
    single = fastrnn.LSTM(I, H, device="cuda")
    with pytest.raises(ValueError, match="weights is 'int8', a stream on the GPU has them in full"):
        single.stream(weights="int8")
    with pytest.raises(TypeError, match="a stream cannot be pickled"):
        stream.__reduce__()
