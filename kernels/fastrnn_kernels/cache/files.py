"""Writing files so that a reader finds them whole or not at all."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastrnn_kernels.handlers import Suppressed

#: Seconds after which a file that was never finished is taken for one whose process was killed.
LEFT_BEHIND_S = 24 * 3600
_NAME_BYTES = 12


class Part:
    """A file that is being written beside its place, where `finish` puts it.

    A file that is there keeps its permissions, a link its place; a new file gets what the user's
    umask gives to any. Until then it has no name, where the system can (Linux), so that nothing is
    left of a process that is killed; else a hidden one that nobody can guess, and what others left
    behind a day ago is removed. Errors name the path that was asked for.

    file: what to write to, open for bytes.
    """

    def __init__(self, path: Path) -> None:
        """Raise OSError that names the path where nothing can be written there."""
        self._wanted = path
        with self.named():
            self._path = path.resolve()
            if self._path.exists() and not self._path.is_file():
                kind = errno.EISDIR if self._path.is_dir() else errno.EINVAL
                raise OSError(kind, os.strerror(kind))
            self._hidden = self._path.with_name(
                f".{self._path.name}-{secrets.token_hex(_NAME_BYTES)}"
            )
            self._has_name = False
            self._remove_leftovers()
            self.file: IO[bytes] = os.fdopen(self._opened(), "wb")

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Have the system's errors name the path, not the hidden file or none."""
        try:
            yield
        except OSError as error:
            if error.errno is None:  # a signal handler's own, as a TimeoutError may be
                raise
            raise OSError(error.errno, error.strerror, str(self._wanted)) from None

    def _opened(self) -> int:
        unnamed = getattr(os, "O_TMPFILE", None)
        if unnamed is not None and os.path.isdir("/proc/self/fd"):
            with Suppressed(OSError):  # not every file system has them
                return os.open(self._path.parent, os.O_WRONLY | unnamed, 0o666)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # which follows no link
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._has_name = True
        return os.open(self._hidden, flags, 0o666)

    def _remove_leftovers(self) -> None:
        pattern = re.compile(rf"\.{re.escape(self._path.name)}-[0-9a-f]{{{2 * _NAME_BYTES}}}")
        with Suppressed(OSError), os.scandir(self._path.parent) as entries:
            for entry in entries:
                if pattern.fullmatch(entry.name):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > LEFT_BEHIND_S:
                        os.unlink(entry.path)

    def finish(self, *, lasting: bool = True) -> None:
        """Put the file in its place.

        lasting: also after a crash of the system, at the price of waiting for the disk.
        """
        try:
            with self.named():
                self._finish(lasting)
        except BaseException:
            self.abandon()
            raise

    def _finish(self, lasting: bool) -> None:
        file = self.file
        file.flush()
        with Suppressed(FileNotFoundError):
            mode = stat.S_IMODE(self._path.stat().st_mode)
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            else:
                os.chmod(self._hidden, mode)
        if lasting:
            os.fsync(file.fileno())
        if not self._has_name:
            self._has_name = True
            self._link()
        file.close()
        os.replace(self._hidden, self._path)
        self._has_name = False
        if lasting:
            self._sync_folder()

    def _link(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            # With a folder given, the link that /proc has is followed to the file itself.
            os.link(
                f"/proc/self/fd/{self.file.fileno()}", self._hidden.name, dst_dir_fd=folder,
                follow_symlinks=True,
            )  # fmt: skip
        finally:
            os.close(folder)

    def _sync_folder(self) -> None:
        if os.name == "nt":  # where folders cannot be opened
            return
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            with Suppressed(OSError):  # some file systems have no such thing
                os.fsync(folder)
        finally:
            os.close(folder)

    def abandon(self) -> None:
        """Leave nothing behind of what was not finished."""
        with Suppressed(OSError):
            self.file.close()
        if self._has_name:
            self._hidden.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a file that appears whole or not at all, as `Part` does.

    Raises OSError that names the path.
    """
    part = Part(path)
    try:
        with part.named():
            part.file.write(data)
    except BaseException:
        part.abandon()
        raise
    part.finish(lasting=lasting)
