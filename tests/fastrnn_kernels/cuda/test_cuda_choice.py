"""Paths on the GPU, on Numba's simulator: which is chosen, why, and what there is room for."""

import re
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from numba import config

import fastrnn
from cases import assert_results_close, make, problem, run
from cuda_arrays import arrays_on_the_gpu, gpu

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

if config.ENABLE_CUDASIM:
    from cuda_grid import all_blocks_at_once
    from fastrnn.cli import main
    from fastrnn.models import auto
    from fastrnn.tools import tune
    from fastrnn_kernels.cache.memo import Memo
    from fastrnn_kernels.cuda import choice, sequence
    from fastrnn_kernels.cuda.data import memory
    from fastrnn_kernels.cuda.launch.errors import TooManyBlocksError
    from fastrnn_kernels.cuda.resident import path as resident
    from fastrnn_kernels.cuda.resident.division import Gpu

I, H, B, T = 3, 5, 2, 3


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """A GPU of three multiprocessors, on which nothing has been measured."""
    memo = Memo({}, tmp_path)
    monkeypatch.setattr(choice, "memo", lambda: memo)
    monkeypatch.setattr(auto, "memo", lambda: memo)
    monkeypatch.setattr(choice, "gpu", lambda: Gpu(3, 48 << 10))
    monkeypatch.setattr(choice, "_refused", set())
    choice.forget()
    with all_blocks_at_once():
        yield memo
    choice.forget()


def weights_of(layer):
    return layer._version.weights[0]


def by_path(found):
    return {candidate.path: candidate for candidate in found.candidates}


def too_large(patches, *ways):
    """Have R not fit, divided so."""
    for way in ways:
        patches.setattr(choice, way, lambda *size: None)
    choice.forget()


def test_the_least_estimate_is_chosen():
    weights = weights_of(make("LSTM", I, H, device="cuda"))
    for B in (1, 7, 100, 10_000):
        found = choice.choose(weights, B, False)
        assert not found.measured
        possible = [one for one in found.candidates if not one.excluded]
        assert [one.path for one in possible] == ["block", "grid", "stepwise"]
        assert found.chosen.estimated == min(one.estimated for one in possible)
        assert all(one.estimated > 0 for one in possible)
    assert choice.choose(weights, 1, False).chosen.path == "block"
    assert choice.choose(weights, 10**6, False).chosen.path == "stepwise"


def test_what_rules_a_path_out_is_told(monkeypatch):
    def excluded(layer, rows=2):
        found = choice.choose(weights_of(layer), rows, True)
        return [by_path(found)[path].excluded for path in ("block", "grid")]

    assert (
        excluded(make("GRU-reset-before", I, H, device="cuda"))
        == ["gate n waits for others, with a product of its own"] * 2
    )
    assert (
        excluded(make("LSTM", I, H, proj_size=2, device="cuda"))
        == ["the projection is a product of its own at each step"] * 2
    )
    layer = make("LSTM", I, H, device="cuda")
    assert excluded(layer, 0) == ["there are no rows"] * 2
    with monkeypatch.context() as patches:
        too_large(patches, "one_block", "all_blocks")
        assert excluded(layer) == [
            "R (400 bytes) and what a step needs do not fit a multiprocessor, "
            "49,152 bytes shared by a block",
            "R (400 bytes) and what a step needs do not fit 3 multiprocessors, "
            "49,152 bytes shared by a block",
        ]
    choice.forget()
    monkeypatch.setattr(choice, "gpu", lambda: Gpu(1, 48 << 10))
    assert excluded(layer) == ["", "there is one multiprocessor"]
    monkeypatch.setattr(choice, "gpu", lambda: Gpu(3, 48 << 10))
    assert excluded(make("LSTM", I, 1, device="cuda")) == ["", "one unit cannot be shared"]


def test_measured_times_decide_once_all_are_known(here):
    weights = weights_of(make("LSTM", I, H, device="cuda"))
    one = choice.problem_of(weights, B, False)
    here.put({one.name("stepwise"): 1e-6, one.name("block"): 3e-6})
    choice.forget()
    assert not choice.choose(weights, B, False).measured, "the grid's time is not known"
    here.put({one.name("grid"): 2e-6})
    choice.forget()
    found = choice.choose(weights, B, False)
    assert found.measured
    assert found.chosen.path == "stepwise"
    # The same class: sizes up to the same powers of two; and no other.
    for rows, hidden, measured in ((B, 8, True), (B + 1, H, False), (B, 9, False)):
        other = weights_of(make("LSTM", I, hidden, device="cuda"))
        assert choice.choose(other, rows, False).measured is measured
    assert not choice.choose(weights, B, True).measured


@pytest.mark.parametrize("path", ["block", "grid", "stepwise"])
def test_one_path_alone_gives_what_others_give(path):
    layer = make("GRU", I, H, device="cuda")
    p = problem(layer, T, B)
    wanted = run(layer, p)
    with choice.only(path):
        assert_results_close(run(layer, p), wanted, 1e-5)
    late = make("GRU-reset-before", I, H, device="cuda")
    with choice.only(path):
        if path == "stepwise":
            late(p.x)
        else:
            with pytest.raises(choice.DoesNotFitError, match=f"path {path}: gate n waits"):
                late(p.x)


def test_a_grid_that_the_driver_refuses_goes_step_by_step(monkeypatch):
    too_large(monkeypatch, "one_block")
    layer = make("LSTM", I, H, device="cuda")
    p = problem(layer, T, B)
    wanted = run(layer, p)
    for backward in (False, True):
        assert choice.choose(weights_of(layer), B, backward).chosen.path == "grid"
    tried = []

    def refuse(*given, **how):
        tried.append(1)
        raise TooManyBlocksError("forward_kernel was not launched, 3 blocks")

    monkeypatch.setattr(resident, "forward", refuse)
    monkeypatch.setattr(resident, "backward", refuse)
    assert_results_close(run(layer, p), wanted, 1e-5)
    assert_results_close(run(layer, p), wanted, 1e-5)
    assert tried == [1, 1], "what was refused is not tried again"
    told = by_path(choice.choose(weights_of(layer), B, True))["grid"].excluded
    assert told == "the driver cannot run all its blocks at once"
    with choice.only("grid"), pytest.raises(choice.DoesNotFitError, match="at once"):
        layer(p.x)


def test_clusters_that_the_driver_refuses_go_by_all_blocks(monkeypatch):
    """And where it refuses those as well, step by step."""
    layer = make("LSTM", I, H, device="cuda")
    x = problem(layer, T, B).x
    wanted, _ = layer(x)
    plain, refused = resident.forward, {"block"}
    ran = []

    def forward(*given, division):
        path = "grid" if division.gridded else "block"
        if path in refused:
            raise TooManyBlocksError("forward_kernel was not launched, 2 blocks")
        ran.append(path)
        plain(*given, division=division)

    monkeypatch.setattr(resident, "forward", forward)
    assert choice.choose(weights_of(layer), B, False).chosen.path == "block"
    monkeypatch.setattr(choice, "_stepwise_s", lambda *given: 1.0)  # the last choice
    choice.forget()
    for again in range(2):
        np.testing.assert_allclose(layer(x)[0], wanted, rtol=1e-5, atol=1e-6)
        assert ran == ["grid"] * (again + 1)
    found = by_path(choice.choose(weights_of(layer), B, False))
    assert found["block"].excluded == "the driver cannot run all its blocks at once"
    refused.add("grid")
    np.testing.assert_allclose(layer(x)[0], wanted, rtol=1e-5, atol=1e-6)
    assert ran == ["grid"] * 2
    assert choice.choose(weights_of(layer), B, False).chosen.path == "stepwise"


def test_what_is_explained_of_the_gpu(here):
    layer = make("LSTM", I, H, num_layers=2, bidirectional=True, device="cuda")
    x = np.zeros((T, B, I), np.float32)
    found = fastrnn.explain(layer, x, training=True)
    assert found.device == "cuda"
    assert [(one.layer, one.backward) for one in found.passes] == [
        (0, False), (1, False), (0, True), (1, True),
    ]  # fmt: skip
    text = str(found)
    assert "layer 1 backward: block, R on chip, 2 blocks of" in text
    assert "µs a step, estimated" in text
    one = choice.problem_of(weights_of(layer), B, False)
    here.put({one.name(path): k * 1e-6 for k, path in enumerate(("stepwise", "grid", "block"), 1)})
    choice.forget()
    text = str(fastrnn.explain(layer, x))
    assert "layer 0 forward: stepwise, any shape" in text
    assert "block: 3.00 µs a step, measured" in text
    late = make("GRU-reset-before", I, H, device="auto")
    with arrays_on_the_gpu():
        text = str(fastrnn.explain(late, gpu(x)))
    assert text.startswith("on cuda: its arrays lie on the GPU")
    assert "not block: gate n waits for others" in text


@pytest.mark.parametrize(("on_cpu", "on_cuda", "where"), [(2.0, 1.0, "cuda"), (1.0, 2.0, "cpu")])
def test_auto_goes_by_what_was_measured(here, on_cpu, on_cuda, where):
    layer = make("LSTM", I, H, device="auto")
    x = np.zeros((T, B, I), np.float32)
    # The CPU's kernels cannot run beside the simulator, so nothing else can be chosen.
    reason = fastrnn.explain(layer, x).reason
    assert reason == "NUMBA_DISABLE_JIT keeps the CPU's kernels from running"
    np.testing.assert_array_equal(layer(x)[0], make("LSTM", I, H, device="cuda")(x)[0])
    name = auto.name(layer._version.weights, T, B, False)
    here.put({f"{name} cpu": on_cpu, f"{name} cuda": on_cuda})
    found = fastrnn.explain(layer, x)
    assert found.device == where
    told = f"the CPU took {on_cpu * 1e3:.3g} ms, the GPU {on_cuda * 1e3:.3g} ms with copies"
    assert found.reason.endswith(told)
    kernels, weights, _ = layer._placed(T, B, False, False)
    assert where == kernels.NAME
    assert isinstance(weights[0], kernels.Weights)


def test_tune_keeps_what_it_measures(monkeypatch, here):
    monkeypatch.setattr(tune, "STEPS", 2)
    seconds = {"block": 3e-6, "grid": 2e-6, "stepwise": 1e-6}
    run_on = []

    def timed(kernels, layer, x, path, backward):
        run_on.append((path, backward, x.shape))
        with kernels.only(path):
            layer(x)
        return seconds[path]

    monkeypatch.setattr(tune, "seconds", timed)
    arguments = ["tune", "--cell", "lstm", "--size", "5", "--batch", "2"]
    done = CliRunner().invoke(main.main, arguments)
    assert done.exit_code == 0, done.output
    assert run_on == [
        (path, backward, (2, 2, 5)) for backward in (False, True) for path in choice.PATHS
    ]
    assert "lstm float32 H=5 B=2" in done.stdout
    assert "forward: stepwise (block 3.00 µs a step, grid 2.00 µs a step, " in done.stdout
    found = choice.choose(weights_of(make("LSTM", 5, 5, device="cuda")), 2, True)
    assert found.measured
    assert found.chosen.path == "stepwise"
    assert Memo({}, here.path.parent).get("grid lstm float32 backward H=8 B=2") == 2e-6


def test_a_path_is_timed_by_running_it(monkeypatch):
    for name, few in (("STEPS", 4), ("CALLS", 1)):
        monkeypatch.setattr(tune, name, few)
    (found,) = tune.tune(tune.points(["rnn"], ["float32"], [3], [1]))
    for what in ("forward", "backward"):
        assert list(found.paths[what]) == list(choice.PATHS)
        assert all(0 < s < 60 for s in found.paths[what].values())
    assert found.kept


def test_tune_says_what_could_not_be_kept(monkeypatch, here):
    monkeypatch.setattr(tune, "seconds", lambda *arguments: 1e-6)
    here.path = None
    done = CliRunner().invoke(main.main, ["tune", "--cell", "rnn", "--size", "3", "--batch", "1"])
    assert done.exit_code == 1
    assert "FASTRNN_CACHE_DIR" in done.stderr


def needed(weights, D, taping):
    """The bytes that a forward pass is said to take, beside its input."""
    with (
        mock.patch.object(memory, "UNASKED", 0),
        mock.patch.object(memory, "room", return_value=(-1, 0)),
        pytest.raises(MemoryError, match="at least") as told,
    ):
        memory.check_forward(weights, D, T, B, taping, 0, lambda: "it")
    return int(re.search(r"([\d,]+) bytes", str(told.value))[1].replace(",", ""))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 2}])
def test_a_tape_is_counted_to_the_byte(options):
    layer = make("LSTM", I, H, num_layers=2, device="cuda", **options)
    p = problem(layer, T, B)
    y, _, tape = layer.forward(p.x, p.state)
    kept = sum(
        getattr(one, name).nbytes
        for one in tape.passes
        for name in ("saved", "old_h", "old_rest", "inner", "full_h")
    )
    kept += 2 * y.nbytes  # the lower layer's too, which is the upper one's x
    sums = 4 * T * B * 4 * H
    weights = layer._version.weights
    D = layer.directions
    assert needed(weights, D, True) == kept + sums
    fresh = make("LSTM", I, H, num_layers=2, device="cuda", **options)._version.weights
    matrices = sum(p.nbytes for n, p in layer.parameters.items() if n.startswith("weight"))
    assert needed(fresh, D, True) == kept + sums + matrices
    assert needed(weights, D, False) < kept + sums


def test_a_shape_that_does_not_fit_is_refused_before_anything_runs(monkeypatch):
    layer = make("LSTM", I, H, device="cuda")
    x = np.zeros((T, B, I), np.float32)
    y, _, tape = layer.forward(x)
    monkeypatch.setattr(memory, "UNASKED", 0)
    monkeypatch.setattr(memory, "room", lambda: (100, 2000))

    def fail(*arguments, **options):
        raise AssertionError("a pass was begun")

    monkeypatch.setattr(sequence, "start_forward", fail)
    many = needed(layer._version.weights, 1, False) + x.nbytes
    message = rf"this LSTM, T=3, B=2 takes at least {many:,} bytes .* 100 of 2,000 are free"
    with pytest.raises(MemoryError, match=message):
        layer(x)
    with pytest.raises(MemoryError, match=r"backward of this LSTM, T=3, B=2 takes at least 552 b"):
        layer.backward(tape, y)
    with pytest.raises(MemoryError, match="this LSTMCell, B=2 takes at least"):
        fastrnn.LSTMCell(I, H, device="cuda")(x[0])
    monkeypatch.setattr(memory, "room", lambda: (10**6, 10**6))
    layer.backward(tape, y)


@pytest.mark.parametrize(
    ("capability", "word"),
    [
        ((9, 0), ""),
        ((7, 0), "its compute capability is 7.0"),
    ],
)
def test_a_gpu_is_tried(monkeypatch, capability, word):
    from fastrnn_kernels.cuda import trial

    device = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(trial, "cuda", SimpleNamespace(get_current_device=lambda: device))
    arrays = SimpleNamespace(asarray=np.asarray, asnumpy=np.asarray)
    monkeypatch.setattr(trial, "xp", arrays)
    assert trial.trial().startswith(word)
    assert bool(trial.trial()) == bool(word)
    arrays.asnumpy = np.zeros_like
    assert trial.trial()
