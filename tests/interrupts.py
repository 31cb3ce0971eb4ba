"""What a signal's handler raises, raised at every place where Python would run the handler.

CPython looks for signals when a function begins, after a call has returned, and when a loop goes
round. `everywhere` runs something again and again, and raises at the first such place in the
package's own code, then at the second, and so on.
"""

import dis
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import fastrnn
import fastrnn_kernels

FOLDERS = tuple(str(Path(package.__file__).parent) for package in (fastrnn, fastrnn_kernels))
#: After these Python looks for signals.
_LOOKS = ("CALL", "JUMP_BACKWARD", "RESUME")


class InterruptError(Exception):
    """What the handler raises: an exception like any other, which broad handlers would catch."""


class Interrupter:
    """A trace function that raises at one place of all that the traced code comes by."""

    def __init__(self, at: int) -> None:
        self.at, self.passed = at, 0
        self.where = ""
        self._names: dict[CodeType, dict[int, str]] = {}
        self._before: dict[FrameType, str] = {}

    def _name(self, frame: FrameType) -> str:
        code = frame.f_code
        if code not in self._names:
            self._names[code] = {one.offset: one.opname for one in dis.get_instructions(code)}
        return self._names[code].get(frame.f_lasti, "")

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDERS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "call":
            self._before[frame] = "RESUME"
        elif event == "opcode":
            before = self._before.get(frame, "")
            self._before[frame] = self._name(frame)
            if before.startswith(_LOOKS):
                if self.passed == self.at:
                    code = frame.f_code
                    self.where = f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
                    self._before.clear()
                    raise InterruptError(self.where)
                self.passed += 1
        elif event == "return":
            self._before.pop(frame, None)
        return self


def everywhere(
    call: Callable[[], object], *, stride: int = 1, first: int = 0
) -> Iterator[tuple[str, BaseException | None]]:
    """InterruptError a call at one place after the other, at each that is `stride` from the last.

    Yields where that was and what the call raised, None if it raised nothing; ends when the call
    comes by no further place.
    """
    at = first
    while True:
        tracer = Interrupter(at)
        found: BaseException | None = None
        sys.settrace(tracer)
        try:
            call()
        except BaseException as error:
            found = error
        finally:
            sys.settrace(None)
        if not tracer.where:
            assert found is None, found
            return
        yield tracer.where, None if found is None else found.with_traceback(None)
        found = None
        at += stride
