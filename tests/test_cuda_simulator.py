"""The simulator's part of the tests, which needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

import compilers


@pytest.mark.compilers
@pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="this is that process")
def test_the_simulators_part():
    compilers.need("numba_cuda")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests", "-k", "cuda", "-q", "-p", "no:cacheprovider"],
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    passed = [line for line in done.stdout.splitlines() if " passed" in line]
    assert int(passed[-1].split(" passed")[0].split()[-1]) > 100, done.stdout[-2000:]
