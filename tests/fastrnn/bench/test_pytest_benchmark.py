"""`pytest bench`, as its docstring says to call it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_the_cases_run_and_are_compared_first():
    pytest.importorskip("pytest_benchmark")
    options = "--suite stream --contender numpy --benchmark-disable -p no:cacheprovider -q"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench", *options.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 passed" in done.stdout
