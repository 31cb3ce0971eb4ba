"""Files appear whole, with the permissions and in the place that a user expects."""

import os

import pytest

from fastrnn_kernels.cache.files import write_whole


def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_permissions(tmp_path):
    if os.name == "nt":
        pytest.skip("Windows has no permissions of this kind")
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_whole(path, b"one")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="missing"):
        write_whole(tmp_path / "missing" / "file", b"data")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError):  # noqa: PT011  (the system's own words)
        write_whole(folder, b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_errors_name_the_path_that_was_asked_for(tmp_path):
    """Not the one of the temporary file, nor that behind a link."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for path in (tmp_path / "missing" / "file", tmp_path / "link" / "file", folder):
        with pytest.raises(OSError) as caught:  # noqa: PT011  (the system's own words)
            write_whole(path, b"data")
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
        assert isinstance(caught.value, FileNotFoundError) == (path != folder)
