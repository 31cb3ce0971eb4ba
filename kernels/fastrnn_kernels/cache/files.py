"""Writing files so that a reader finds them whole or not at all."""

import os
import stat
import uuid
from pathlib import Path

from fastrnn_kernels.handlers import Suppressed


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name beside it, then move it to its own.

    A file that is there keeps its permissions, a link its place; a new file gets what the
    user's umask gives to any. Raises OSError that names the path.
    """
    wanted, path = path, path.resolve()
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
        with Suppressed(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # the system's names the temporary file, or none
            raise OSError(error.errno, error.strerror, str(wanted)) from None
        raise
