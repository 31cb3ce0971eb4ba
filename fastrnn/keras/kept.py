"""Tapes that wait for their backward pass where a framework carries arrays only.

Under JAX and TensorFlow the two passes are callbacks, and what goes from one to the other is
an array: a number, under which the tape is kept here. A tape that is gone (taken already,
released, or one of too many) is made again from the arguments of the forward pass. So a number
is a value like any other: a program may be run again, copied, or stopped half-way.
"""

import os
import threading
from collections import OrderedDict

import numpy as np

from fastrnn.arrays import Array
from fastrnn.device import at_release
from fastrnn.keras.engine import Call, States, Tape, backward, forward
from fastrnn.keras.weights import KerasWeights
from fastrnn_kernels.tape import ARRAYS

#: Bytes of tapes that may wait.
LIMIT = 1 << 29


class _Waiting:
    def __init__(self) -> None:
        self._last = 0
        self.forget()

    def forget(self) -> None:
        """Start anew: after a fork, another thread may have held the lock.

        Numbers go on: a child has those of its parent's tapes, which must not become others'.
        """
        self._lock = threading.Lock()
        self._tapes: OrderedDict[int, tuple[Tape, int]] = OrderedDict()
        self.bytes = 0

    def keep(self, tape: Tape) -> int:
        """The number to take it by."""
        size = sum(getattr(tape.taken, name).nbytes for name in ARRAYS)
        with self._lock:
            self._last = self._last % (2**32 - 1) + 1  # 0 is no tape's
            self._tapes[self._last] = tape, size
            self.bytes += size
            while self.bytes > LIMIT:  # the one that has waited longest goes first
                self.bytes -= self._tapes.popitem(last=False)[1][1]
            return self._last

    def take(self, number: int) -> Tape | None:
        with self._lock:
            tape, size = self._tapes.pop(number, (None, 0))
            self.bytes -= size
        return tape

    def release(self) -> None:
        """Let go of all that wait."""
        with self._lock:
            tapes, self._tapes, self.bytes = self._tapes, OrderedDict(), 0
        tapes.clear()


waiting = _Waiting()
at_release(waiting.release)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=waiting.forget)


def numbered_forward(
    call: Call, taping: bool, x: Array, mask: Array | None, weights: KerasWeights, states: States
) -> tuple[Array, States, Array]:
    """As `engine.forward`; in place of the tape its number, 0 if there is none."""
    shown, final, tape = forward(call, x, mask, weights, states, taping)
    number = 0 if tape is None else waiting.keep(tape)
    return shown, final, np.array(number, np.uint32)


def numbered_backward(
    call: Call,
    number: Array,
    x: Array,
    mask: Array | None,
    weights: KerasWeights,
    states: States,
    d_shown: Array,
    d_states: States,
) -> tuple[Array, KerasWeights, States]:
    """As `engine.backward`, of the tape of that number, or of the forward pass made again."""
    tape = waiting.take(int(number))
    if tape is None:
        tape = forward(call, x, mask, weights, states, taping=True)[2]
        assert tape is not None
    return backward(tape, d_shown, d_states)
