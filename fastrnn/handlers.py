"""Exceptions of signals' handlers, which pass through everything that catches those of others."""

import sys
from types import FrameType, TracebackType

#: How often exceptions are turned into others; they may be each other's cause.
_DEEP = 16


def pass_on(error: BaseException) -> None:
    """Raise an exception again, as it is, where a signal's handler has raised it.

    For the head of an `except` that tells of any exception in words of its own: a handler (a
    timeout's) runs between any two instructions, so what it raises comes up in whatever is called
    there, and libraries turn it into exceptions of theirs. It is known by a frame in the traceback,
    of a function that was given the frame that it was called from: so are handlers and trace
    functions, and nothing else is.
    """
    if _is_of_handler(error.__traceback__):
        raise error
    here, one = sys._getframe(1), error.__cause__ or error.__context__
    for _ in range(_DEEP):
        if one is None:
            return
        trace = one.__traceback__
        # Not one that was told already as the caller was called, and is none of this error's.
        if trace and _is_called_from(trace.tb_frame, here) and _is_of_handler(trace):
            raise one
        one = one.__cause__ or one.__context__


def _is_of_handler(trace: TracebackType | None) -> bool:
    while trace is not None:
        if _is_handler(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _is_called_from(frame: FrameType | None, here: FrameType) -> bool:
    while frame is not None and frame is not here:
        frame = frame.f_back
    return frame is here


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
