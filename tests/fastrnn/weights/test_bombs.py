"""Small files that ask for gigabytes or minutes are refused by name, for little of either."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn
from bombs import BOMBS, archive, plain
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn.files.zip import Archive
from fastrnn.streams.snapshot import Snapshot

#: Bytes beyond what a file may take, for what is no file's: the allocator, and the test itself.
SLACK = 64 << 20


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of each file what was raised, and what reading it took, in a process of their own."""
    script, folder = Path(__file__).parents[2] / "bombs.py", tmp_path_factory.mktemp("bombs")
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells of memory")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb(found, name):
    one, (_, wanted) = found[name], BOMBS[name]
    assert re.match(rf"file '[^']*{re.escape(name)}'", one["told"]), one["told"]
    assert re.search(wanted, one["told"]), one["told"]
    assert one["growth"] < (64 << 20) + 10 * one["size"] + SLACK
    assert one["seconds"] < 20  # of a processor; most take a hundredth


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no files that are none")
@pytest.mark.parametrize("suffix", ["", ".pt", ".safetensors", ".keras", ".onnx", ".json", ".npz"])
def test_what_has_no_end_is_not_read(suffix, tmp_path):
    """A pipe that nobody writes to, and devices under a model's name."""
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    paths = [pipe]
    for device in ("zero", "null"):
        (tmp_path / f"{device}{suffix}").symlink_to(f"/dev/{device}")
        paths.append(tmp_path / f"{device}{suffix}")
    for path in paths:
        with pytest.raises(ValueError, match=f"file '{path}' is no regular file"):
            fastrnn.load(path)


def test_a_snapshot_of_many_names_is_refused():
    header = b'{"__metadata__":{' + b'"a":"",' * 2_000_000 + b'"b":""}}'
    with pytest.raises(ValueError, match="its header would have"):
        Snapshot.from_bytes(len(header).to_bytes(8, "little") + header)


def test_what_a_budget_is(monkeypatch):
    budget = Budget(1000)
    budget.take((64 << 20) + 9_000, "the first")
    with pytest.raises(MisfitError, match=r"the second would have 1,001 bytes after 67,117,864 of"):
        budget.take(1_001, "the second")
    budget.take(1_000, "the second")
    budget.more(100)
    assert budget.left == 1000
    from fastrnn.files import budget as module

    now, clock = module.thread_time(), module.perf_counter()
    monkeypatch.setattr(module, "perf_counter", lambda: clock + 1.2)
    monkeypatch.setattr(module, "thread_time", lambda: now + 0.1)
    budget.take(0, "one on a busy machine")
    monkeypatch.setattr(module, "perf_counter", lambda: clock + 1.5)
    monkeypatch.setattr(module, "thread_time", lambda: now + 1.2)
    with pytest.raises(MisfitError, match="it takes longer to read than any model of its size"):
        budget.take(0, "the third")
    Budget(1_000_000).take(0, "one that is new")


def test_an_archive_is_read_to_the_last_byte(tmp_path):
    """Without its checksum, as torch writes it on demand; a wrong one is told."""
    path = tmp_path / "a.zip"
    archive(path, {"one": plain(b"content"), "two": (b"\x4b\x4c\x4a\x06\x00", 8, 3)})
    data = path.read_bytes()
    files = Archive(data, Budget(len(data)))
    assert list(files) == ["one", "two"]
    assert files.read("one") == b"content"
    assert files.read("two") == b"abc"
    damaged = Archive(data.replace(b"content", b"c0ntent"), Budget(len(data)))
    with pytest.raises(MisfitError, match="one is damaged"):
        damaged.read("one")
