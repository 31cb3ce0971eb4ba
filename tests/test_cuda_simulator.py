"""The simulator's part of the tests, which needs a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

import compilers

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.compilers
@pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="this is that process")
def test_the_simulators_part():
    compilers.need("numba_cuda")
    # It is in a test's name, so in the file or how that is called: no others need be collected.
    files = [
        str(file)
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "cuda" in f"{file.relative_to(ROOT)} {file.read_text(encoding='utf-8')}"
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "-k", "cuda", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    passed = [line for line in done.stdout.splitlines() if " passed" in line]
    assert int(passed[-1].split(" passed")[0].split()[-1]) > 100, done.stdout[-2000:]
