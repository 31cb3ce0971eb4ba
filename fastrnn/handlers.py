"""Exceptions of signals' handlers, which pass through everything that catches those of others."""

from types import FrameType


def pass_on(error: BaseException) -> None:
    """Raise an exception again, as it is, where a signal's handler has raised it.

    For the head of an `except` that tells of any exception in words of its own: a handler (a
    timeout's) runs between any two instructions, so what it raises comes up in whatever is called
    there. It is known by a frame in the traceback, of a function that was given the frame that it
    was called from: so are handlers and trace functions, and nothing else is.
    """
    trace = error.__traceback__
    while trace is not None:
        if _is_handler(trace.tb_frame):
            raise error
        trace = trace.tb_next


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
