"""Layers on the GPU's three paths, on Numba's simulator: values, gradients, errors.

NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 pytest tests -k cuda
"""

import numpy as np
import pytest
from numba import config

import fastrnn
from cases import CELLS, as_state, assert_close, expected, make, problem, run, states, title
from fastrnn_kernels.cells import registry
from gradients import VARIANTS, B, H, I, T, check

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

if config.ENABLE_CUDASIM:
    from cuda_grid import all_blocks_at_once
    from fastrnn_kernels.cuda import choice
    from fastrnn_kernels.cuda.resident import division
    from fastrnn_kernels.cuda.resident import path as resident

PATHS = ["stepwise", "block", "grid"]
#: Late gates, and cells without a product with h, take the path step by step alone.
BY_STEPS = {
    title(entry) for entry in registry.CELLS.values() if entry.cell.late or not entry.cell.GH
}
CASES = [(p, cell) for p in PATHS for cell in CELLS if p == "stepwise" or cell not in BY_STEPS]


@pytest.fixture
def on(monkeypatch):
    """Makes float64 layers that take a path, forward and backward, on six multiprocessors."""
    gpu = division.Gpu(6, 48 << 10) if config.ENABLE_CUDASIM else None

    def layer_on(path, cell, *sizes, **options):
        def division_of(weights, B, backward):
            if path == "stepwise" or B == 0:
                return None
            way = division.one_block if path == "block" else division.all_blocks
            found = way(weights.cell, weights.hidden_size, B, 8, gpu, backward)
            assert found.gridded == (path == "grid")
            return found

        monkeypatch.setattr(choice, "division_of", division_of)
        monkeypatch.setattr(choice, "gpu", lambda: gpu)
        return make(cell, *sizes, dtype="float64", device="cuda", **options)

    with all_blocks_at_once():
        yield layer_on


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("path", "cell"), CASES)
def test_gradients(on, path, cell, variant):
    options = dict(VARIANTS[variant])
    arguments = {key: options.pop(key) for key in ("lengths", "reset") if key in options}
    layer = on(path, cell, I, H, **options)
    check(cell, layer, problem(layer, T, B, seed=6), **arguments)


@pytest.mark.parametrize("lengths", [None, np.array([2, 0, 4])])
def test_gradients_of_a_projected_lstm(on, lengths):
    layer = on("stepwise", "LSTM", I, 4, num_layers=2, proj_size=2, bidirectional=True)
    check("LSTM", layer, problem(layer, T, B), lengths=lengths)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 2, 5, 7), (2, 11, 1, 3), (1, 5, 3, 4)])
@pytest.mark.parametrize(("path", "cell"), CASES)
def test_values(on, path, cell, sizes):
    T, B, I, H = sizes
    H = max(H, 4) if path == "grid" else H  # fewer need no second block
    layer = on(path, cell, I, H, bidirectional=True)
    p = problem(layer, T, B)
    lengths = np.arange(B) % (T + 1)
    y, final = layer(p.x, as_state(p.state), lengths=lengths)
    wanted, wanted_final, _ = expected(cell, layer, p, lengths=lengths)
    # The functions of plain Python round as the reference's do; sums in another order.
    assert_close(y, wanted, 1e-12, "y")
    for mine, its in zip(states(final), wanted_final, strict=True):
        assert_close(mine, its, 1e-12, "state")


@pytest.mark.parametrize("path", PATHS)
def test_two_runs_give_the_same_bits(on, path):
    layer = on(path, "LSTM", I, 5)
    p = problem(layer, T, B)
    first, second = run(layer, p).arrays(), run(layer, p).arrays()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


@pytest.mark.parametrize("path", PATHS)
def test_blocks_of_r(on, path):
    """On the GPU R is dense: of its gradient comes what stands in the blocks."""
    layer, other = on(path, "LSTM", I, 6, blocks=3), on(path, "LSTM", I, 6)
    own = layer.parameters["weight_hh_l0"].reshape(4, 3, 2, 2)
    whole = np.zeros((4, 3, 2, 3, 2))
    for k in range(3):
        whole[:, k, :, k] = own[:, k]
    other.load_state_dict({**layer.parameters, "weight_hh_l0": whole.reshape(24, 6)})
    p = problem(layer, T, B)
    found, wanted = run(layer, p).arrays(), run(other, p).arrays()
    for name, array in found.items():
        right = wanted[name]
        if array.shape != right.shape:
            parts = right.reshape(4, 3, 2, 3, 2)
            right = np.stack([parts[:, k, :, k] for k in range(3)], axis=1).reshape(24, 2)
        np.testing.assert_array_equal(array, right, err_msg=name)


@pytest.mark.parametrize("path", ["block", "grid"])
def test_both_directions_are_one_launch(on, path, monkeypatch):
    launches = []
    plain = resident.launch_blocks

    def launch_blocks(kernel, *given, **options):
        launches.append(kernel)
        plain(kernel, *given, **options)

    monkeypatch.setattr(resident, "launch_blocks", launch_blocks)
    layer = on(path, "LSTM", I, 5, bidirectional=True)
    run(layer, problem(layer, T, B))
    assert len(launches) == 2


@pytest.mark.parametrize("path", ["block", "grid"])
def test_a_row_has_the_same_bits_in_any_batch(on, path):
    layer = on(path, "GRU", I, 5)
    p = problem(layer, T, 5)
    y, _ = layer(p.x)
    for b in range(5):
        np.testing.assert_array_equal(layer(p.x[:, b : b + 1])[0][:, 0], y[:, b])


def test_gates_unbatched_input_and_dropout(on):
    layer = on("stepwise", "LSTM", I, H, num_layers=2, dropout=0.5)
    p = problem(layer, T, 1)
    y, _, tape = layer.forward(p.x[:, 0], training=False, return_gates=True)
    _, _, gates = expected("LSTM", layer, problem_without_state(p))
    assert y.shape == (T, H)
    for name, values in tape.gates[1].items():
        assert_close(values, gates[1][name][:, 0], 1e-12, name)
    rng = np.random.default_rng(0)
    dropped, _, tape = layer.forward(p.x, rng=rng)
    mask = tape.masks[1]
    assert set(np.unique(mask)) == {0.0, 2.0}
    wanted, _, _ = expected("LSTM", layer, problem_without_state(p), masks=[mask])
    assert_close(dropped, wanted, 1e-12, "y")


def problem_without_state(p):
    return type(p)(p.x, tuple(np.zeros_like(s) for s in p.state), p.dy, p.dstate)


@pytest.mark.parametrize("cell", ["RNN-tanh", "LSTM", "GRU"])
def test_cells(on, cell):
    kind, options = CELLS[cell]
    one = getattr(fastrnn, f"{kind}Cell")(I, H, device="cuda", dtype="float64", seed=0, **options)
    layer = on("block", cell, I, H, num_layers=1)
    layer.load_state_dict({f"{name}_l0": value for name, value in one.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((1, B, I))
    _, final = layer(x)
    new, tape = one.forward(x[0])
    for mine, its in zip(states(new), states(final), strict=True):
        np.testing.assert_array_equal(mine, its[0])
    gradients = one.backward(tape, as_state([np.ones((B, H)) for _ in states(new)]))
    _, _, of_layer = layer.forward(x)
    wanted = layer.backward(of_layer, None, as_state([np.ones((1, B, H)) for _ in states(new)]))
    for name, value in gradients.parameters.items():
        assert_close(value, wanted.parameters[f"{name}_l0"], 1e-12, name)


@pytest.mark.parametrize("T", [0, 3])
def test_empty_batches_and_sequences(on, T):
    layer = on("block", "LSTM", I, H)
    for x in (np.zeros((T, 0, I)), np.zeros((0, 2, I))):
        state = tuple(np.ones((1, x.shape[1], H)) for _ in "hc")
        y, final, tape = layer.forward(x, state)
        assert y.shape == (*x.shape[:2], H)
        for mine, its in zip(final, state, strict=True):
            np.testing.assert_array_equal(mine, its)
        gradients = layer.backward(tape, np.zeros_like(y), state)
        assert not gradients.parameters["weight_hh_l0"].any()
        for mine, its in zip(gradients.state, state, strict=True):
            np.testing.assert_array_equal(mine, its)


def test_padding_may_hold_anything(on):
    layer = on("block", "GRU", I, H)
    p = problem(layer, T, B)
    lengths = np.array([2, 0, 4])
    clean = run(layer, p, lengths=lengths).arrays()
    for b, length in enumerate(lengths):
        p.x[length:, b] = np.nan
        p.dy[length:, b] = np.nan
    for name, array in run(layer, p, lengths=lengths).arrays().items():
        np.testing.assert_array_equal(array, clean[name], err_msg=name)


def test_tapes_of_long_sequences(on):
    """Their bytes are told ahead; checkpoints and clipped gradients are for the CPU."""
    layer = on("stepwise", "LSTM", 2, 3, 2)
    y, _, tape = layer.forward(problem(layer, 4, 2).x)
    held = [a for one in tape.passes for a in (one.x, one.saved, one.old_h, one.old_rest)]
    assert layer.tape_bytes(4, 2) == sum(array.size * array.dtype.itemsize for array in held)
    with pytest.raises(ValueError, match="checkpoint is 2, and this call is the GPU's"):
        layer.forward(problem(layer, 4, 2).x, checkpoint=2)
    with pytest.raises(ValueError, match="clip_norm are for tapes of the CPU"):
        layer.backward(tape, y, clip_norm=1)


def test_what_the_gpu_has_not_is_said():
    layer = fastrnn.LSTM(I, H, device="cuda")
    with pytest.raises(ValueError, match="dtype is 'float16', which is the GPU's alone"):
        fastrnn.LSTM(I, H, device="auto", dtype="float16")
    with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
        layer.to("cpu")
    assert layer.device == "cuda"
    with pytest.raises(TypeError, match="input has dtype float64, this LSTM takes float32"):
        layer(np.zeros((T, B, I)))


def test_an_ensemble_is_its_layers_one_after_the_other(on):
    layer = on("stepwise", "GRU", 3, 4, 2, bidirectional=True)
    ensemble = fastrnn.Ensemble(
        fastrnn.GRU, 3, 4, 2, bidirectional=True, models=2, seed=0, dtype="float64", device="cuda"
    )
    p = problem(layer, 4, 3)
    y, state, tape = ensemble.forward(p.x, lengths=[4, 2, 3])
    dy = np.stack([p.dy, 2 * p.dy])
    found = ensemble.backward(tape, dy, np.stack([p.dstate[0]] * 2))
    total = np.zeros_like(p.x)
    for m in range(2):
        one = ensemble.member(m)
        its, its_state, its_tape = one.forward(p.x, lengths=[4, 2, 3])
        wanted = one.backward(its_tape, dy[m], p.dstate[0])
        total += wanted.x
        np.testing.assert_array_equal(y[m], its)
        np.testing.assert_array_equal(state[m], its_state)
        np.testing.assert_array_equal(found.state[m], wanted.state)
        for name, value in wanted.parameters.items():
            np.testing.assert_array_equal(found.parameters[name][m], value, err_msg=name)
    np.testing.assert_array_equal(found.x, total)
    with pytest.raises(ValueError, match="this call is the GPU's"):
        ensemble.forward(p.x, checkpoint=2)
    with pytest.raises(ValueError, match="this is the GPU's"):
        ensemble.backward(tape, dy, clip_norm=1.0)
