"""Kernels that came with the package, compiled when its wheel was built.

They lie in `fastrnn_kernels/precompiled`: for each level of CPUs a folder, in it one for what else
they depend on (`keys.portable`), and there one file a signature, as in the user's cache. They are
read, never written: `fastrnn.tools.precompile` makes them. Which levels this host runs, its
instruction sets tell (`cpu/isa/levels.py`); here they are only places.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastrnn_kernels.cache import keys
from fastrnn_kernels.handlers import Suppressed

#: Where they lie, in a wheel that has any.
FOLDER = Path(__file__).parents[1] / "precompiled"


class Level(NamedTuple):
    """CPUs that run the same machine code.

    name: of its folder. cpu, features: LLVM's names of what it is compiled for. lacks: what code
    for this host alone would do better, in words, if anything.
    """

    name: str
    cpu: str
    features: str
    lacks: str = ""


_log = logging.getLogger("fastrnn")
_levels: list[Callable[[], tuple[Level, ...]]] = []
_left_out = False


def offer(levels: Callable[[], tuple[Level, ...]]) -> None:
    """Look for kernels in the places of these levels, the first first.

    A function, which is called where a kernel is wanted that the user's cache has not.
    """
    _levels.append(levels)


def folder_of(level: Level) -> Path:
    """Where a level's kernels for these sources, versions and settings lie."""
    return FOLDER / level.name / keys.portable()


def _there(folder: Path) -> bool:
    with Suppressed(OSError):  # as of a folder that this user may not look into
        return folder.is_dir()
    return False


@cache
def present() -> tuple[tuple[Level, Path], ...]:
    """The levels that this host runs and kernels have come for, and where these lie."""
    if _left_out or not _there(FOLDER):
        return ()
    places = [(level, folder_of(level)) for levels in _levels for level in levels()]
    found = tuple((level, folder) for level, folder in places if _there(folder))
    for lacks in {level.lacks: None for level, _ in found if level.lacks}:
        _log.warning(
            "kernels that came with fastrnn do not %s; `fastrnn warmup --exact` compiles such",
            lacks,
        )
    return found


def leave_out() -> None:
    """Compile for this host from now on what has come with the package, too."""
    global _left_out
    _left_out = True
    present.cache_clear()


def words() -> str:
    """What has come, in words: the levels of it that are used here, or why there are none."""
    if present():
        return "for " + ", ".join(level.name for level, _ in present())
    if not _there(FOLDER):
        return "none: they are compiled at the first call"
    if not any(FOLDER.glob(f"*/{keys.portable()}")):
        return "for other versions of Python, Numba or NumPy, or other settings of Numba"
    return "for other CPUs"


def paths(name: Callable[[str, str], str]) -> Iterator[Path]:
    """Where a kernel may lie, whose file's name depends on LLVM's names of CPU and features."""
    for level, folder in present():
        yield folder / name(level.cpu, level.features)
