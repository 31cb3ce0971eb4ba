"""A thousand mutated files of each format: refused with an error, or read; nothing else.

Some 4,200 changes, 500 of each kind; FASTRNN_FUZZ is how many files, and `.ci/run` takes four
thousand.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fuzz import BATCH, FORMATS

COUNT = int(os.environ.get("FASTRNN_FUZZ", "1000"))
#: For each format at most; a call reads a file in about a millisecond, where the disk lets it.
SECONDS = 10 if "FASTRNN_FUZZ" not in os.environ else 600
MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells of memory")
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files(name, tmp_path):
    script = Path(__file__).parents[2] / "fuzz.py"
    usable = os.access(MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(dir=MEMORY if usable else tmp_path) as folder:
        done = subprocess.run(
            [sys.executable, script, name, str(COUNT), str(SECONDS), folder],
            capture_output=True, text=True, timeout=SECONDS + 120, check=False,
        )  # fmt: skip
        largest = max(file.stat().st_size for file in Path(folder).iterdir())
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["read"] + found["refused"] >= min(COUNT, BATCH)
    # Some changes are to values or to what nobody reads; most are not.
    assert found["refused"] > found["read"] > 0
    assert found["growth"] < (64 << 20) + 10 * largest
