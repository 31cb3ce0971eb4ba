"""Compiled kernels are kept on disk and found again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastrnn_kernels import cache

#: Runs a small layer and prints how many functions Numba compiled, and a value.
PROGRAM = """
import numpy as np
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    import fastrnn
    layer = fastrnn.RNN(3, 4, seed=0)
    y, _ = layer(np.ones((5, 2, 3), np.float32))
print(sum(e.is_start for _, e in recorder.buffer), float(y[-1, -1, -1]).hex())
"""


def run(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "FASTRNN_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == ""
    compiled, value = done.stdout.split()
    return int(compiled), value


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache folder with the kernels in it, and the value they gave."""
    folder = tmp_path_factory.mktemp("cache")
    compiled, value = run(folder)
    assert compiled > 0
    return folder, value


def test_a_second_process_compiles_nothing(warm):
    folder, value = warm
    assert run(folder) == (0, value)


def test_a_damaged_file_is_compiled_again(warm):
    folder, value = warm
    files = list(folder.rglob("*.nbc"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    compiled, again = run(folder)
    assert compiled > 0
    assert again == value
    assert run(folder) == (0, value), "the damaged file was not replaced"


def test_a_folder_that_cannot_be_made_costs_time_only(warm, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    compiled, value = run(blocked)
    assert compiled > 0
    assert value == warm[1]


def test_the_folder_follows_sources_and_setting(monkeypatch, tmp_path):
    cache.cache_folder.cache_clear()
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path))
    first = cache.cache_folder()
    assert first.parent == tmp_path
    cache.cache_folder.cache_clear()
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda p: read(p) + (b" " if p.name == "lstm.py" else b"")
    )
    assert cache.cache_folder() != first, "changed equations would be served from the old cache"
    monkeypatch.undo()
    cache.cache_folder.cache_clear()
