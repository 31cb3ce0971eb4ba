"""Tapes that wait for their backward pass where a framework carries arrays only.

Under TensorFlow, and under JAX outside of compiled programs, what goes from one pass to the other
is an array: a number, under which the tape is kept here. A tape that is gone (taken already,
released, or one of too many) is made again from the arguments of the forward pass. So a number is a
value like any other: a program may be run again, copied, or stopped half-way.
"""

from itertools import count

import numpy as np

from fastrnn.arrays import Array
from fastrnn.device import at_release
from fastrnn.keras.engine import Call, States, Tape, backward, forward
from fastrnn.keras.weights import KerasWeights
from fastrnn_kernels.tape import ARRAYS

#: Bytes of tapes that may wait.
LIMIT = 1 << 29


class _Waiting:
    """Without a lock, which an interrupt could leave held: each step is one call of C's."""

    def __init__(self) -> None:
        self._numbers = count()
        self._tapes: dict[int, tuple[Tape, int]] = {}

    @property
    def bytes(self) -> int:
        """Bytes of the tapes that wait."""
        return sum(size for _, size in list(self._tapes.values()))

    def keep(self, tape: Tape) -> int:
        """The number to take it by.

        A child has those of its parent's tapes, which must not become others': numbers go on.
        """
        number = next(self._numbers) % (2**32 - 1) + 1  # 0 is no tape's
        self._tapes[number] = tape, sum(getattr(tape.taken, name).nbytes for name in ARRAYS)
        over = self.bytes - LIMIT
        for oldest, (_, size) in list(self._tapes.items()):
            if over <= 0:
                break
            self._tapes.pop(oldest, None)
            over -= size
        return number

    def take(self, number: int) -> Tape | None:
        return self._tapes.pop(number, (None, 0))[0]

    def release(self) -> None:
        """Let go of all that wait."""
        self._tapes.clear()


waiting = _Waiting()
at_release(waiting.release)


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
    dx, d_weights, d_start = backward(tape, d_shown, d_states)
    assert dx is not None
    return dx, d_weights, d_start
