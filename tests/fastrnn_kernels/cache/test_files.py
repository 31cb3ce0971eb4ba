"""Files appear whole, with the permissions and in the place that a user expects."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from fastrnn_kernels.cache import files
from fastrnn_kernels.cache.files import Part, write_whole

#: Whether files have no name until they are finished, or a hidden one, as where Linux cannot.
UNNAMED = [False, True] if hasattr(os, "O_TMPFILE") else [False]


@pytest.fixture(params=UNNAMED)
def unnamed(request, monkeypatch):
    if not request.param:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return request.param


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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_process_that_is_killed_leaves_no_file_behind(tmp_path):
    """Where the system has files without a name; elsewhere a later save removes them."""
    script = (
        "import os, sys, time; from pathlib import Path; "
        "from fastrnn_kernels.cache.files import Part; part = Part(Path(sys.argv[1])); "
        "part.file.write(bytes(1 << 20)); part.file.flush(); print('written', flush=True); "
        "time.sleep(60)"
    )
    path = tmp_path / "file"
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "written\n"
        found = [p.name for p in tmp_path.iterdir()]
        process.send_signal(signal.SIGKILL)
    assert found == [] if hasattr(os, "O_TMPFILE") else len(found) == 1


def test_what_others_left_behind_a_day_ago_is_removed(unnamed, tmp_path):
    path = tmp_path / "file"
    old, new, other = (tmp_path / f".{name}" for name in
                       ("file-" + 24 * "a", "file-" + 24 * "b", "file-mine"))  # fmt: skip
    ago = time.time() - files.LEFT_BEHIND_S - 60
    for one in (old, new, other):
        one.write_bytes(b"part")
    for one in (old, other):
        os.utime(one, (ago, ago))
    write_whole(path, b"data")
    assert {p.name for p in tmp_path.iterdir()} == {"file", new.name, other.name}


def test_a_link_that_was_planted_is_not_followed(unnamed, tmp_path, monkeypatch):
    """Even by somebody who has guessed the hidden name."""
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "ab" * count)
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    (tmp_path / (".file-" + "ab" * 12)).symlink_to(victim)
    with pytest.raises(FileExistsError) as caught:
        write_whole(path, b"data")
    assert caught.value.filename == str(path)
    assert victim.read_bytes() == b"precious"
    assert not path.exists()


def test_hidden_names_cannot_be_guessed(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    parts = [Part(tmp_path / "file") for _ in range(2)]
    names = {p.name for p in tmp_path.iterdir()}
    assert len(names) == 2
    assert all(len(name) == len(".file-") + 24 for name in names)
    for part in parts:
        part.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot open folders")
@pytest.mark.parametrize("lasting", [False, True])
def test_what_is_saved_is_on_the_disk(unnamed, lasting, tmp_path, monkeypatch):
    """The file before it gets its name, and the folder once it has it."""
    path, synced = tmp_path / "file", []
    plain = os.fsync

    def fsync(descriptor):
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path), path.exists()))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, b"data", lasting=lasting)
    assert synced == ([(False, False), (True, True)] if lasting else [])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no files that are none")
def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "null"):
        with pytest.raises(OSError) as caught:  # noqa: PT011  (the system's own words)
            write_whole(path, b"data")
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(path))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
@pytest.mark.parametrize("kind", [TimeoutError, OSError, KeyboardInterrupt])
def test_what_a_handler_raises_comes_out_as_itself(unnamed, kind, tmp_path, monkeypatch):
    """Also where it looks like the system's; and nothing is left of the file."""
    raised = kind("of the handler")

    def handler(*_):
        raise raised

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        plain = os.fsync
        monkeypatch.setattr(os, "fsync", lambda d: (plain(d), os.kill(os.getpid(), signal.SIGUSR1)))
        with pytest.raises(kind) as caught:
            write_whole(tmp_path / "file", b"data")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value is raised
    assert not list(tmp_path.iterdir())
