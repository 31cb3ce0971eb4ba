"""What reading a file may take, of memory and of time: one account for every format.

Files say how large they are inside, and a few bytes can say that it is gigabytes. So a reader asks
here before it makes anything whose size the file decides, and what it asks for is added up.
"""

import os
import stat
from time import perf_counter, thread_time

from fastrnn.files.errors import MisfitError

#: Bytes: for any file, and for each byte of it.
_MEMORY, _MEMORY_PER_BYTE = 64 << 20, 10
#: Seconds: for any file, and for each byte of it.
_TIME, _TIME_PER_BYTE = 1.0, 0.5e-6
#: Seconds between two looks at the time that a thread has had, once it may have had too much.
_LOOK = 0.02


class Budget:
    """64 MiB and ten times a file's size; one second, and half a second for each MB.

    Seconds are the processor's in this thread: a busy machine refuses nothing.

    size: of the file, in bytes; `more` is for those that belong to it.
    """

    def __init__(self, size: int) -> None:
        self.size = 0
        self._left = _MEMORY
        self._end, self._look_at = thread_time() + _TIME, perf_counter() + _TIME
        self.more(size)

    def more(self, size: int) -> None:
        """Add another file's size."""
        self.size += size
        self._left += _MEMORY_PER_BYTE * size
        self._end += _TIME_PER_BYTE * size
        self._look_at += _TIME_PER_BYTE * size

    def give(self, size: int) -> None:
        """Give back what was taken and not needed."""
        self._left += size

    @property
    def left(self) -> int:
        """The bytes that may still be taken."""
        return self._left

    def take(self, size: int, what: str) -> None:
        """Raise MisfitError where there is no memory left for so many bytes, or no time."""
        if size < 0 or size > self._left:
            limit = _MEMORY + _MEMORY_PER_BYTE * self.size
            before = f" after {limit - self._left:,} of others" if self._left < limit else ""
            raise MisfitError(
                f"{what} would have {size:,} bytes{before}; a file of {self.size:,} may take "
                f"{limit:,} of memory"
            )
        self._left -= size
        # A thread's own time takes a call of the system; it is never ahead of the clock.
        if perf_counter() > self._look_at:
            if thread_time() > self._end:
                raise MisfitError(f"{what}: it takes longer to read than any model of its size")
            self._look_at = perf_counter() + _LOOK


def checked(path: str) -> None:
    """Raise ValueError for what is neither a file nor a folder: devices and pipes have no end.

    Raises OSError if there is nothing.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of folders, `open` tells
        raise ValueError(f"file {path!r} is no regular file, which a model's has to be")


def read(path: str) -> tuple[bytes, Budget]:
    """A file's bytes, and what reading them may take.

    Raises OSError if it cannot be read, ValueError if it is no regular file.
    """
    checked(path)
    with open(path, "rb") as file:
        data = file.read(os.fstat(file.fileno()).st_size)
    return data, Budget(len(data))
