"""Compiled kernels are kept on disk and found again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastrnn_kernels.cache import disk, keys

#: Runs a small layer and prints how many functions Numba compiled, and a value.
PROGRAM = """
import numpy as np
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    import fastrnn
    layer = fastrnn.RNN(3, 4, seed=0)
    y, _, tape = layer.forward(np.ones((5, 2, 3), np.float32))
    layer.backward(tape, y)
print(sum(e.is_start for _, e in recorder.buffer), float(y[-1, -1, -1]).hex())
"""
#: The same of a stream.
STREAM_PROGRAM = """
import numpy as np
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    import fastrnn
    y = fastrnn.RNN(1, 1, seed=0).stream().step(np.ones(1, np.float32))
print(sum(e.is_start for _, e in recorder.buffer), float(y[0]).hex())
"""
#: The same of one kernel that compiles in half a second.
SMALL_PROGRAM = """
import numpy as np
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    from fastrnn_kernels.cpu.arrays.take import take
    y = take(np.arange(6, dtype=np.float32).reshape(2, 3, 1).swapaxes(0, 1))
print(sum(e.is_start for _, e in recorder.buffer), float(y.ravel() @ np.arange(6)).hex())
"""


def run(folder: Path | None, program: str = SMALL_PROGRAM) -> tuple[int, str]:
    """Run a program with its kernels in a folder, or where all tests' are."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **({} if folder is None else {"FASTRNN_CACHE_DIR": str(folder)})},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("compiling")]
    assert said == []
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
    for program in (PROGRAM, STREAM_PROGRAM):
        _, value = run(None, program)
        assert run(None, program) == (0, value)


def cut_short(data: bytes) -> bytes:
    return data[:100]


def bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut_short, bit_flipped])
def test_a_damaged_file_is_compiled_again(damage, warm):
    folder, value = warm
    files = list(folder.rglob("*.nbc"))
    assert files
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    compiled, again = run(folder)
    assert compiled > 0
    assert again == value
    assert run(folder) == (0, value), "the damaged file was not replaced"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
def test_other_users_may_read_the_files(warm):
    umask = os.umask(0)
    os.umask(umask)
    for file in warm[0].rglob("*.nbc"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_that_cannot_be_made_costs_time_only(warm, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    compiled, value = run(blocked)
    assert compiled > 0
    assert value == warm[1]


def _forget():
    keys.sources.cache_clear()
    disk.cache_folder.cache_clear()


@pytest.fixture
def forgotten():
    """What is kept of sources and settings is read anew, in the test and after it."""
    _forget()
    yield _forget
    _forget()


def test_the_folder_follows_sources_and_setting(monkeypatch, tmp_path, forgotten):
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path))
    first = disk.cache_folder()
    assert first.parent == tmp_path
    forgotten()
    read = Path.read_bytes
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "read_bytes", lambda p: read(p) + (b" " if p.name == "lstm.py" else b"")
        )
        assert disk.cache_folder() != first, "changed equations would be served from the old cache"
    forgotten()
    assert disk.cache_folder() == first
    with monkeypatch.context() as patch:
        patch.setattr(keys.config, "BOUNDSCHECK", 1)
        forgotten()
        assert disk.cache_folder() != first, "kernels compiled with other settings would be served"


def test_the_gpus_sources_leave_the_folder_as_it_is(monkeypatch, forgotten):
    first = keys.sources()
    forgotten()
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda p: read(p) + (b" " if p.parent.name == "cuda" else b"")
    )
    assert keys.sources() == first


def test_folders_that_nobody_uses_are_removed_when_another_is_made(monkeypatch, tmp_path):
    long_ago = time.time() - disk.UNUSED_S - 60
    for name, used in (("kernels-old", long_ago), ("kernels-new", time.time())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lstm.nbc").write_bytes(b"kernel")
        os.utime(tmp_path / name, (used, used))
    (tmp_path / "tuned").mkdir()
    os.utime(tmp_path / "tuned", (long_ago, long_ago))
    monkeypatch.setattr(disk, "cache_folder", lambda: tmp_path / "kernels-now")
    assert disk.kernel("test")(lambda x: x + 1)(1) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kernels-new",
        "kernels-now",
        "tuned",
    ]


def test_loading_a_kernel_marks_its_folder_as_used(monkeypatch, tmp_path):
    folder = tmp_path / "kernels-now"
    monkeypatch.setattr(disk, "cache_folder", lambda: folder)

    def function(x):
        return x + 2

    assert disk.kernel("test")(function)(1) == 3
    os.utime(folder, (0, 0))
    disk._use.cache_clear()
    assert disk.kernel("test")(function)(1) == 3
    assert folder.stat().st_mtime > time.time() - 3600


def test_no_home_folder_means_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("FASTRNN_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    disk.cache_folder.cache_clear()
    assert disk.cache_folder() is None
    assert disk.kernel("test")(lambda x: x + 1)(1) == 2
    monkeypatch.undo()
    disk.cache_folder.cache_clear()


def test_kernels_that_different_processes_compiled_work_together(tmp_path):
    """Each process numbers the functions it compiles anew, so symbols could be the same."""
    program = """
import sys, numpy as np, fastrnn
for name in sys.argv[1:]:
    y, _ = fastrnn.RNN(3, 5, nonlinearity=name, seed=0)(np.ones((4, 2, 3), np.float32))
    print(name, float(np.abs(y).sum()).hex())
"""

    def values(*names: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, *names],
            env={**os.environ, "FASTRNN_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return done.stdout.splitlines()

    alone = values("tanh") + values("relu")
    assert len(set(alone)) == 2
    assert values("tanh", "relu") == alone
