"""Exceptions of signals' handlers, which pass through everything that catches those of others.

A handler (a timeout's) runs between any two instructions, so what it raises comes up in whatever is
called there, and may be of any kind: a TimeoutError is an OSError.
"""

import sys
from types import FrameType, TracebackType

#: How often exceptions are turned into others; they may be each other's cause.
_DEEP = 16


def by_handler(error: BaseException) -> bool:
    """Whether a signal's handler has raised an exception.

    It is known by a frame in the traceback, of a function that was given the frame that it was
    called from: so are handlers and trace functions, and nothing else is.
    """
    # The first frame is that of who caught it, and no handler. To ask for its locals would make a
    # ring of it, them and the error, and keep all that its callers have until a collection.
    trace = error.__traceback__ and error.__traceback__.tb_next
    while trace is not None:
        if _is_handler(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def pass_on(error: BaseException) -> None:
    """Raise an exception again, as it is, where a signal's handler has raised it.

    For the head of an `except` that tells of an exception in words of its own, or goes on.
    Libraries turn what comes up in them into exceptions of theirs: then it is what theirs came of.
    """
    if by_handler(error):
        raise error
    here, one = sys._getframe(1), error.__cause__ or error.__context__
    for _ in range(_DEEP):
        if one is None:
            return
        trace = one.__traceback__
        # Not one that was told already as the caller was called, and is none of this error's.
        if trace and _is_called_from(trace.tb_frame, here) and by_handler(one):
            raise one
        one = one.__cause__ or one.__context__


class Suppressed:
    """As `contextlib.suppress`, but for what a signal's handler raises."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        return error is not None and isinstance(error, self._kinds) and not by_handler(error)


def _is_handler(frame: FrameType) -> bool:
    caller, code = frame.f_back, frame.f_code
    if caller is None:
        return False
    many = code.co_argcount + code.co_kwonlyargcount + 2  # and *args, **kwargs
    for name in code.co_varnames[:many]:
        value = frame.f_locals.get(name)
        if value is caller or (type(value) is tuple and any(one is caller for one in value)):
            return True
    return False


def _is_called_from(frame: FrameType | None, here: FrameType) -> bool:
    while frame is not None and frame is not here:
        frame = frame.f_back
    return frame is here
