"""`python -m bench.gpu`, rehearsed on Numba's simulator: what it compares, and that it can fail."""

import json
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
    from cuda_grid import all_blocks_at_once
    from fastrnn_kernels.cuda import choice, division


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1])
    monkeypatch.setattr(choice, "gpu", lambda: division.Gpu(3, 48 << 10))
    from bench import gpu

    with all_blocks_at_once():
        yield gpu


@pytest.mark.parametrize("path", ["stepwise", "block", "grid"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_path_is_compared(gpu, cell, path):
    for dtype, ragged in (("float32", True), ("float64", False)):
        row = gpu.compare(cell, dtype, (3, 2, 3, 5), path, 0, ragged)
        assert row["good"], row
        assert row["same_bits"]


def test_a_wrong_kernel_is_found(gpu, monkeypatch):
    plain = gpu.reference.backward

    def other(*arguments):
        dx, start, gradients = plain(*arguments)
        return dx, start, gradients | {"weight_hh": gradients["weight_hh"] + 1e-3}

    monkeypatch.setattr(gpu.reference, "backward", other)
    row = gpu.compare("gru", "float64", (3, 2, 3, 5), "stepwise", 0, False)
    assert not row["good"]
    assert row["worst"] == "weight_hh"


def test_the_command_writes_what_it_found(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "CELLS", {"rnn": gpu.CELLS["rnn"]})
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--part", "tests", "--small", "--out", str(tmp_path / "new")]
    )
    assert gpu.main() == 0
    found = json.loads((tmp_path / "new" / "tests.json").read_text())
    assert found["machine"]["gpu"] == {"gpu": "Numba's simulator"}
    assert {row.get("path") for row in found["rows"]} >= {"stepwise", "block"}
    assert np.all([row["good"] for row in found["rows"]])
