"""What was measured, kept in a file: found again, merged, and never in the way."""

import json
import os
import warnings

import pytest

from fastrnn.models import auto
from fastrnn_kernels.cache.memo import Memo

MACHINE = {"gpu": "GPU X", "cpu": "CPU Y"}


@pytest.mark.smoke
def test_what_was_kept_is_found_by_another_process(tmp_path):
    assert Memo(MACHINE, tmp_path).put({"a": 1.5, "b": 2})
    again = Memo(dict(reversed(MACHINE.items())), tmp_path)
    assert [again.get(name) for name in "abc"] == [1.5, 2, None]
    assert json.loads(again.path.read_text())["machine"] == MACHINE
    assert os.listdir(tmp_path) == [again.path.name], "something was left behind"


def test_another_machine_has_another_file(tmp_path):
    Memo(MACHINE, tmp_path).put({"a": 1.0})
    assert Memo(MACHINE | {"gpu": "GPU Z"}, tmp_path).get("a") is None


def test_two_that_write_keep_both(tmp_path):
    one, two = Memo(MACHINE, tmp_path), Memo(MACHINE, tmp_path)
    assert two.get("a") is None  # has read the file before the other writes
    one.put({"a": 1.0, "b": 1.0})
    two.put({"b": 2.0})
    found = Memo(MACHINE, tmp_path)
    assert (found.get("a"), found.get("b")) == (1.0, 2.0)
    assert two.get("a") == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"seconds": 3}', '{"seconds": {"a": "1"}}', '{"seconds": {"a": -1}}',
     '{"seconds": {"a": NaN}}', '{"seconds": {"a": true}}', "[" * 100_000, "\xff\xfe"],
)  # fmt: skip
def test_a_broken_file_is_ignored_with_one_warning(tmp_path, text):
    memo = Memo(MACHINE, tmp_path)
    memo.path.write_bytes(text.encode("latin-1"))
    with pytest.warns(RuntimeWarning, match="no file of times that were measured"):
        assert memo.get("a") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert memo.get("a") is None
        assert memo.put({"a": 1.0})
    assert Memo(MACHINE, tmp_path).get("a") == 1.0


def test_a_folder_that_cannot_be_written_keeps_it_in_memory(tmp_path):
    (tmp_path / "file").write_text("")
    memo = Memo(MACHINE, tmp_path / "file")  # no folder: nothing can be written there
    assert not memo.put({"a": 1.0})
    assert memo.get("a") == 1.0


def test_no_folder_keeps_it_in_memory():
    memo = Memo(MACHINE, None)
    assert not memo.put({"a": 1.0})
    assert memo.get("a") == 1.0


def test_the_file_of_a_machine_and_its_versions(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTRNN_CACHE_DIR", str(tmp_path))
    auto.memo.cache_clear()
    try:
        memo = auto.memo()
    finally:
        auto.memo.cache_clear()
    assert memo.path.parent == tmp_path
    assert memo.machine["cpu"]
    assert {"gpu", "kernels", "numba", "numpy"} <= set(memo.machine)
