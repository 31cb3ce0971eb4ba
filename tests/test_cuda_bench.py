"""`python -m bench.gpu`, rehearsed on Numba's simulator: what it compares, and that it can fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import config

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

if config.ENABLE_CUDASIM:
    import reference
    from cases import problem, states
    from cuda_grid import all_blocks_at_once
    from fastrnn.device import GPU_COMPUTE
    from fastrnn_kernels.cells.gru import GRU
    from fastrnn_kernels.cells.lstm import LSTM
    from fastrnn_kernels.cuda import choice
    from fastrnn_kernels.cuda.launch import launch
    from fastrnn_kernels.cuda.resident import division

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(choice, "gpu", lambda: division.Gpu(3, 48 << 10))
    from bench.gpu import __main__, cases, compare, limits, truth

    main = __main__
    main.cases, main.compared, main.limits, main.truth = cases, compare, limits, truth
    with all_blocks_at_once():
        yield main


SHAPE = (3, 2, 3, 5)


def variants():
    found = [("lstm", {}), ("gru", {"ragged": True}), ("rnn", {"resets": True})]
    found += [("lstm", {"ragged": True, "resets": True, "bidirectional": True})]
    return [(path, *one) for path in ("stepwise", "block", "grid") for one in found] + [
        ("stepwise", "lstm", {"proj_size": 2, "ragged": True, "resets": True}),
        ("stepwise", "gru-reset-before", {"ragged": True, "bidirectional": True}),
    ]


@pytest.mark.parametrize(("path", "cell", "options"), variants())
def test_every_path_is_compared(gpu, path, cell, options):
    for dtype in ("float32", "float64"):
        row = gpu.compare(gpu.Case(cell, dtype, SHAPE, path, **options), 0)
        assert row["good"], row
        assert row["same_bits"]


def test_every_type_is_compared(gpu):
    assert set(gpu.compared.TYPES) == set(gpu.compared.TOLERANCE) & {*GPU_COMPUTE, "tf32"}
    for dtype in gpu.compared.TYPES:
        row = gpu.compare(gpu.Case("gru", dtype, (3, 9, 4, 7), "grid", ragged=True), 0)
        assert row["good"], row


@pytest.mark.parametrize("path", ["block", "grid"])
def test_a_path_that_does_not_fit_is_told(gpu, path):
    row = gpu._tested(gpu.Case("gru-reset-before", "float32", SHAPE, path), 0)
    assert row["good"]
    assert "waits for others" in row["does not fit"]


@pytest.mark.parametrize("name", ["weight_hh", "weight_ih", "bias_hh"])
def test_a_wrong_kernel_is_found(gpu, monkeypatch, name):
    plain = gpu.truth.run

    def other(*arguments):
        found = plain(*arguments)

        def backward(*given):
            dx, start, gradients = found.backward(*given)
            return dx, start, gradients | {name: gradients[name] + 1e-3}

        return found._replace(backward=backward)

    monkeypatch.setattr(gpu.truth, "run", other)
    row = gpu.compare(gpu.Case("gru", "float64", SHAPE, "stepwise"), 0)
    assert not row["good"]
    assert row["worst"] == f"{name}_l0"


def test_an_element_that_is_not_written_is_found(gpu, monkeypatch):
    from fastrnn_kernels.cuda.resident import path as resident

    monkeypatch.setattr(resident, "forward", lambda given, division: None)
    monkeypatch.setattr(resident, "backward", lambda given, division: None)
    row = gpu.compare(gpu.Case("gru", "float64", SHAPE, "block"), 0)
    assert not row["good"]
    assert np.isnan(row["error"])


@pytest.mark.parametrize(
    ("cell", "options"),
    [(cell, {}) for cell in ("rnn", "rnn-relu", "lstm", "gru", "gru-reset-before")]
    + [("lstm", {"proj_size": 2})],
)
def test_what_it_compares_with_is_true(gpu, cell, options):
    """Values against the plain reference, gradients by finite differences of it."""
    T, B, I, H = 4, 3, 2, 3
    kind = {"r": "RNN", "l": "LSTM", "g": "GRU"}[cell[0]]
    own = {"rnn-relu": {"nonlinearity": "relu"}, "gru-reset-before": {"reset_after": False}}
    layer = gpu.compared.CELLS[cell](
        I, H, dtype="float64", device="cuda", bidirectional=True, seed=3, **options
    )
    p = problem(layer, T, B, seed=6)
    lengths = np.array([2, 0, 4])
    reset = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)
    parameters = layer.state_dict()

    start = {f"start {k}": part for k, part in enumerate(states(p.state))}

    def loss(given):
        state = tuple(given[name] for name in start)
        y, final, _ = reference.layer(
            kind, given, given["dx"], state, lengths, reset, **own.get(cell, {})
        )
        return reference.inner((y, *final), (p.dy, *p.dstate))

    wanted, final, _ = reference.layer(
        kind, parameters, p.x, p.state, lengths, reset, **own.get(cell, {})
    )
    case = gpu.Case(cell, "float64", (T, B, I, H), "", bidirectional=True, **options)
    made = gpu.compared.Problem(case, 0)
    made.layer, made.x, made.dy, made.start, made.d_final = layer, p.x, p.dy, p.state, p.dstate
    made.lengths, made.reset = lengths, reset
    found = made.wanted()
    np.testing.assert_allclose(found["y"], wanted, atol=1e-13)
    for k, part in enumerate(final):
        np.testing.assert_allclose(found[f"final {k}"], part, atol=1e-13)
    # As `tests/gradients.py` has it.
    gradients = reference.finite_differences(loss, {"dx": p.x} | start | parameters)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], gradient, atol=1e-8, err_msg=name)


def test_the_command_writes_what_it_found(gpu, monkeypatch, tmp_path):
    few = [gpu.Case("rnn", "float32", SHAPE, path) for path in choice.PATHS]
    few.append(gpu.Case("rnn", "float32", SHAPE, "", stream=True))
    monkeypatch.setattr(gpu.cases, "tests", lambda small: iter(few))
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--part", "tests", "--small", "--out", str(tmp_path / "new")]
    )
    assert gpu.main() == 0
    found = json.loads((tmp_path / "new" / "tests.json").read_text())
    assert found["machine"]["gpu"] == {"gpu": "Numba's simulator"}
    assert [row["path"] for row in found["rows"]] == [*choice.PATHS, ""]
    assert np.all([row["good"] for row in found["rows"]])


def test_its_cases_cover_what_there_is(gpu):
    for small in (True, False):
        found = list(gpu.cases.tests(small))
        for path in choice.PATHS:
            of_path = [case for case in found if case.path == path]
            assert {case.dtype for case in of_path} >= {"float32", "float64"}
            for name in ("ragged", "resets", "bidirectional"):
                assert any(getattr(case, name) for case in of_path), (path, name)
        assert any(case.proj_size for case in found)
        assert any(case.stream for case in found)
        assert {case.cell for case in found} == set(gpu.compared.CELLS)
    few = list(gpu.cases.sanitized())
    assert {case.path for case in few} == set(choice.PATHS)
    assert len(few) < 12


def test_real_cases_are_divided_as_they_say(gpu, monkeypatch):
    """On an H100: clusters, more of them than run at once, and tensor cores."""
    h100 = division.Gpu(132, 227 << 10, (9, 0))

    def divided(case, backward=False):
        _, B, _, H = case.shape
        cell = {"lstm": LSTM, "gru": GRU}[case.cell]
        divide = division.one_block if case.path == "block" else division.all_blocks
        item = 8 if case.dtype == "float64" else 4
        return divide(cell, H, B, item, h100, backward, case.dtype)

    found = [case for case in gpu.cases.mechanisms() if case.path != "stepwise"]
    ways = {case: divided(case) for case in found}
    assert all(ways.values())
    blocks = [way for case, way in ways.items() if case.path == "block"]
    assert all(way.cluster > 1 for way in blocks)
    assert any(way.blocks > 132 for way in blocks)
    tensor = {case.dtype for case, way in ways.items() if way.compute}
    assert tensor == {"tf32", "bfloat16", "float16"}
    few = [case for case in gpu.cases.sanitized() if case.path != "stepwise"]
    few = [divided(case) for case in few if case.cell in ("lstm", "gru")]
    assert any(way.cluster > 1 for way in few)
    assert any(way.compute for way in few)


def test_out_of_time_is_told_and_not_wrong(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "LIMIT", -1)
    monkeypatch.setattr(sys, "argv", ["gpu", "--part", "tests", "--out", str(tmp_path)])
    assert gpu.main() == 0
    (row,) = json.loads((tmp_path / "tests.json").read_text())["rows"]
    assert row == {"out of time": True, "left from": 0}


@pytest.fixture
def sanitizer(monkeypatch, tmp_path):
    """Puts a script in the place of compute-sanitizer."""

    def write(text):
        tool = tmp_path / "compute-sanitizer"
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return write


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script of a shell")
def test_the_sanitizer_runs_a_few_cases_and_its_findings_are_told(gpu, sanitizer, tmp_path):
    sanitizer('echo "$@"; [ "$2" = memcheck ] && exit 0; exit 9')
    memcheck, racecheck = gpu.sanitize(tmp_path)
    assert (memcheck["tool"], memcheck["good"]) == ("memcheck", True)
    assert (racecheck["tool"], racecheck["good"]) == ("racecheck", False)
    command = memcheck["tail"].split()
    assert command[:4] == ["--tool", "memcheck", "--error-exitcode", "9"]
    assert command[4:10] == [sys.executable, "-m", "bench.gpu", "--part", "tests", "--few"]


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script of a shell")
def test_a_sanitizer_that_takes_too_long_is_stopped(gpu, sanitizer, monkeypatch, tmp_path):
    sanitizer("echo begun; exec sleep 60")
    monkeypatch.setattr(gpu, "LIMIT", 1)
    for row in gpu.sanitize(tmp_path):
        assert not row["good"]
        assert (row["error"], row["tail"]) == ("out of time", "begun\n")


def test_no_sanitizer_is_said(gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.sanitize(tmp_path) == [
        {"good": True, "skipped": "compute-sanitizer is not installed"}
    ]


def test_the_floor_of_a_shape(gpu):
    found = {
        "float32_flops": 1e12, "shared_bytes_per_s": 1e12, "cache_bytes_per_s": 1e10,
        "grid_barrier_s": 1e-3, "launch_s": 1.0,
    }  # fmt: skip
    shape = (10, 1, 100, 100)  # weights of 120 kB, read in 0.12 µs; h of 400 B to 3 each
    forward = gpu.limits.floor_s(found, 3, shape, False, fits_one=False)
    of_x = 2 * 10 * 100 * 300 / 1e12
    assert forward == pytest.approx(1 + 10 * (1.2e-7 + 1e-3 + 1200 / 1e10) + of_x)
    train = gpu.limits.floor_s(found, 3, shape, True, fits_one=True)
    assert train == pytest.approx(2 + 20 * 1.2e-7 + 4 * of_x)
    # 64 rows are bound by arithmetic: two operations to a weight and row.
    many = gpu.limits.floor_s(found, 3, (10, 64, 100, 100), False, fits_one=True)
    assert many == pytest.approx(1 + 10 * 2 * 64 * 30_000 / 1e12 + 64 * of_x)


def test_the_kernel_that_reads_the_cache_reads_all_of_it(gpu):
    data = np.arange(50, dtype=np.float32)
    sums = np.full(3 * 4, np.nan, np.float32)
    launch.launch_blocks(gpu.limits.READING, 3, 4, 0, data, sums, data.size, 5)
    assert sums.sum() == 5 * data.sum()


def test_the_kernel_that_times_barriers_meets(gpu):
    met = np.zeros(1, np.int64)
    launch.launch_blocks(gpu.limits.MEETING, 3, 4, 0, met, 5, cooperative=True)
    assert met[0] == 3 * 5


def test_the_table_of_speeds(gpu):
    from bench.gpu.speed import table

    row = {"cell": "lstm", "shape": (128, 16, 64, 256), "tf32": True}
    for kind in ("forward", "train"):
        row |= {f"{kind} us a step": 2.5, f"{kind} cudnn / fastrnn": 1.25}
    row["forward fastrnn / floor"] = 1.75
    *_, last = table([{"ceilings": {}}, row]).splitlines()
    values = last.split()
    assert values == ["lstm", "tf32", "256", "16", "128", "2.50", "1.25", "1.75", "2.50", "1.25",
                      "failed"]  # fmt: skip


def test_it_needs_neither_rich_nor_click_nor_torch():
    script = (
        "import sys; sys.modules.update(dict.fromkeys(('rich', 'click', 'torch', 'matplotlib')));"
        "import bench.gpu.__main__, bench.gpu.speed"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
