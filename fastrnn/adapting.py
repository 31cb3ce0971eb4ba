"""What adapters share: weights made anew when they change, a framework's threads, a user's line."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Generic, TypeVar

from fastrnn.arrays import Array
from fastrnn_kernels.cpu.arrays.compare import Copies
from fastrnn_kernels.cpu.threads.openmp import runtime_of

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """What was last made of a framework's arrays, as long as those stay what they are.

    No framework tells reliably when a variable has changed, so it is seen from the values: to
    compare them takes a tenth of the time of packing them. Threads may share one.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, Copies, Made] | None = None

    def of(
        self,
        key: Any,
        same: Callable[[Copies], bool],
        arrays: Callable[[], Sequence[Array]],
        make: Callable[[list[Array]], Made],
    ) -> Made:
        """What was made, if the key is that of the last time and its copies are the `same`.

        arrays: gives the arrays as they are now, which are copied: a backward pass may pack
        later, and has to get the values of the forward pass. make: makes it of the copies.
        """
        found = self.found(key, same)
        if found is not None:
            return found
        copies = Copies(list(arrays()))
        made = make(copies.arrays)
        self.keep(key, copies, made)
        return made

    def found(self, key: Any, same: Callable[[Copies], bool]) -> Made | None:
        """What was made, if the key is that of the last time and its copies are the `same`."""
        kept = self._kept  # another thread may put something else there
        if kept is not None and kept[0] == key and same(kept[1]):
            return kept[2]
        return None

    def keep(self, key: Any, copies: Copies, made: Made) -> None:
        """Keep what somebody has made of copies."""
        self._kept = key, copies, made

    def copies_of(self, made: Made) -> Copies | None:
        """The copies that it was made of; None if it is not what is kept."""
        kept = self._kept
        return kept[1] if kept is not None and kept[2] is made else None


@cache
def threads_of(package: ModuleType, library: str) -> AbstractContextManager[None]:
    """A context in which kernels run on the threads that a framework itself computes with.

    library: of those in the package's folder `lib`, the one that computes, without its ending.
    Where it has no OpenMP runtime, kernels run on threads of their own, as elsewhere.
    """
    found = Path(package.__file__ or "").with_name("lib").glob(f"{library}.*")
    return next(filter(None, map(runtime_of, map(str, found))), None) or nullcontext()


def level_of_user(between: Callable[[FrameType], bool]) -> int:
    """The level in the stack, for `warnings.warn` of the caller, of the line that a user wrote.

    between: whether a frame is of the code that stands between that line and the warning. As
    `skip_file_prefixes` of `warnings.warn`, which Python 3.11 has not.
    """
    frame, level = sys._getframe(1), 1
    while between(frame) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level
