"""What a signal's handler raises, raised at every place where Python would run the handler.

CPython looks for signals when a function begins, when a call has returned, and when a loop goes
round; what a handler raises then is the call's, or the loop's, own: it goes to whoever guards that.
`everywhere` runs something again and again, and raises at the first such place in the package's
own code, then at the second, and so on.

Of calls of Python's and C's functions the profiler tells when they have returned. Of other calls,
as of classes, and of loops there are only the instructions that follow: these count where the same
handlers guard them.
"""

import dis
import sys
from collections.abc import Callable, Iterator
from inspect import CO_GENERATOR
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import fastrnn
import fastrnn_kernels

FOLDERS = [str(Path(package.__file__).parent) for package in (fastrnn, fastrnn_kernels)]


#: After these Python looks for signals.
_LOOKS = ("CALL", "JUMP_BACKWARD")


class InterruptError(Exception):
    """What the handler raises: an exception like any other, which broad handlers would catch."""


class _Code:
    """The instructions of a function, and what guards each."""

    def __init__(self, code: CodeType) -> None:
        self.code = code  # kept, or another could get its address
        self.names = {one.offset: one.opname for one in dis.get_instructions(code)}
        self._guards = dis._parse_exception_table(code)  # type: ignore[attr-defined]
        self.own = any(code.co_filename.startswith(folder) for folder in FOLDERS)
        self.generator = bool(code.co_flags & CO_GENERATOR)

    def guard(self, offset: Any) -> int | None:
        """Where what an instruction raises goes."""
        found = [one.target for one in self._guards if one.start <= offset < one.end]
        return found[-1] if found else None


class Interrupter:
    """Raises at one place of all that the code comes by while it is in use.

    codes: what is known of functions by the addresses of their code, and is added to.
    """

    def __init__(self, at: int, codes: dict[int, _Code]) -> None:
        self.at, self.passed, self.where = at, 0, ""
        self._codes = codes
        #: Of each frame the instruction that it has come to, unless that was a place already.
        self._last: dict[FrameType, int] = {}

    def _code(self, frame: FrameType) -> _Code:
        code = frame.f_code
        known = self._codes.get(id(code))  # its hash would be computed from all that it has
        if known is None:
            known = self._codes[id(code)] = _Code(code)
        return known

    def _place(self, frame: FrameType, what: str) -> None:
        self._last.pop(frame, None)
        if self.passed == self.at and not self.where:
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}, {what}"
            self._last.clear()
            sys.setprofile(None)
            raise InterruptError(self.where)
        self.passed += 1

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        """Of functions: they begin, or have returned."""
        here = sys._getframe(1)
        if event == "c_return":
            self._returned(frame, getattr(arg, "__name__", str(arg)))
        elif event == "call":
            # What Numba has compiled is told of, too, with a frame that nobody runs.
            if here is frame and self._code(frame).own and not self._code(frame).generator:
                self._place(frame, "as it begins")
        elif event == "return" and not self._code(frame).generator:
            caller = frame.f_back if here is frame else here
            if caller is not None:
                self._returned(caller, frame.f_code.co_name)

    def _returned(self, caller: FrameType, name: str) -> None:
        code = self._code(caller)
        # Not behind what `with` or an attribute calls: there Python does not look.
        if code.own and code.names.get(caller.f_lasti, "").startswith("CALL"):
            self._place(caller, f"after {name}")

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Of instructions: each before it runs."""
        code = self._code(frame)
        if not code.own:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            now, last = frame.f_lasti, self._last.get(frame)
            self._last[frame] = now
            before = "" if last is None else code.names.get(last, "")
            if before.startswith(_LOOKS) and code.guard(last) == code.guard(now):
                self._place(frame, "after a call or a loop's turn")
                self._last[frame] = now
        return self.trace

    def __enter__(self) -> None:
        sys.setprofile(self.profile)
        sys.settrace(self.trace)

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        sys.settrace(None)
        self._last.clear()  # frames keep what their functions had


def everywhere(
    call: Callable[[], object], stride: int = 1
) -> Iterator[tuple[str, BaseException | None]]:
    """Interrupt a call at one place after the other, or at each `stride`th.

    Yields where that was and what the call raised, None if it raised nothing; ends when the call
    comes by no further place.
    """
    at = 0
    codes: dict[int, _Code] = {}
    while True:
        one = Interrupter(at, codes)
        found: BaseException | None = None
        try:
            with one:
                call()
        except BaseException as error:
            found = error.with_traceback(None)
            found.__context__ = None  # nor keep what the frames of another one kept
        if not one.where:
            assert found is None, found
            return
        yield one.where, found
        at += stride
