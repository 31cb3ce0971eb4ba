"""Errors in equations, told at the user's own line."""

import linecache
import sys
from pathlib import Path
from types import CodeType

_HERE = str(Path(__file__).parent)


class EquationError(ValueError):
    """Equations that are no cell's; the message has the line and what to write instead."""


def place() -> str:
    """The line of the user's that runs now, "cell.py, line 7"; empty where there is none."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return ""
    return told(frame.f_code.co_filename, frame.f_lineno)


def place_of(code: CodeType) -> str:
    """Where a function begins."""
    return told(code.co_filename, code.co_firstlineno)


def told(filename: str, number: int) -> str:
    """A line of a file, in words."""
    line = linecache.getline(filename, number).strip()
    return f"{Path(filename).name}, line {number}" + (f": {line}" if line else "")


def error(message: str, at: str | None = None) -> EquationError:
    """An error at a place, that of the line that runs now if none is given."""
    found = place() if at is None else at
    return EquationError(f"{message}\n  at {found}" if found else message)
