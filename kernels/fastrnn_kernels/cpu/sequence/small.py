"""Calls of little work, whose way through Python takes longer than they do.

The jobs of all passes of a call are made once, for a shape. A call puts the addresses of its arrays
into their records and makes them, one after the other, in compiled code.
"""

from collections.abc import Sequence

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.product.weights import Weights
from fastrnn_kernels.cpu.sequence.stacks import parts_of_pass
from fastrnn_kernels.cpu.sequence.start import start_forward
from fastrnn_kernels.cpu.threads.board import alone
from fastrnn_kernels.cpu.threads.job import Record
from fastrnn_kernels.cpu.threads.pool import MIN_WORK
from fastrnn_kernels.rows import Rows


@kernel("small-call")
def _run(busy, records, places, given):  # type: ignore[no-untyped-def]
    """places (., 3): a word of the records, whose array of the given ones, and bytes into it."""
    if not atomic.replace(busy, 0, 0, 1):
        return False
    for k in range(len(places)):
        records[places[k, 0]] = given[places[k, 1]] + places[k, 2]
    alone(records)
    atomic.store(busy, 0, 0)
    return True


def prepare() -> None:
    """Compile what makes calls of cells with one state, or two."""
    words = types.Array(types.int64, 1, "C")
    for states in (1, 2):
        given = types.UniTuple(types.int64, 2 + 2 * states)
        _run.compile((words, words, types.Array(types.int64, 2, "C"), given))


def is_small(weights: Sequence[Weights], T: int, B: int) -> bool:
    """Whether a call is so little work that other threads take no part.

    Nor are those of cells of many states, whose arrays are not parts of what is given.
    """
    work = sum(one.w_ih.size + one.w_hh.size for one in weights) * T * B
    return 0 < work < MIN_WORK and weights[0].cell.N <= 2


class SmallCall:
    """The passes of a stack over whole sequences, for inference.

    weights: of each direction of each layer. Threads may share one: who finds it busy has to go
    the other way.
    """

    def __init__(self, weights: Sequence[Weights], T: int, B: int, directions: int) -> None:
        first, rows = weights[0], Rows.whole(T, B)
        dtype, P, H = first.dtype, first.state_size, first.hidden_size
        many, others = len(weights), first.cell.N - 1
        x = np.empty((T, B, first.input_size), dtype)
        widths = [P, *[H] * others]
        states = [np.zeros((many, B, width), dtype) for width in widths]
        final = [np.empty_like(state) for state in states]
        records: list[Record] = []
        self._kept: list[object] = [states]  # what records point to
        inner = x
        for k in range(0, many, directions):
            y = np.empty((T, B, directions * P), dtype)
            for d in range(directions):
                ends = [parts_of_pass(arrays, k + d) for arrays in (states, final)]
                run = start_forward(
                    weights[k + d], inner, *ends[0], *ends[1], rows, y, d * P, reverse=d == 1
                )
                records.append(run.job.record)
                self._kept.append(run.job.arguments)
            inner = y
        self._kept.append(inner)
        self._records: Record = np.concatenate(records)
        self._busy = np.zeros(1, np.int64)
        #: For whoever wants no y.
        self.y = _address(inner)
        #: Zeros, for whoever gives no initial states.
        self.zeros = tuple(_address(state) for state in states)
        self._places = self._found([x, inner, *states, *final])

    def _found(self, arrays: Sequence[Array]) -> NDArray[np.int64]:
        """Where the addresses of arrays, and of the parts that passes have of them, stand."""
        places = []
        for n, array in enumerate(arrays):
            first = _address(array)
            inside = (self._records >= first) & (self._records < first + array.nbytes)
            places += [(at, n, self._records[at] - first) for at in np.flatnonzero(inside)]
        return np.array(places, np.int64).reshape(-1, 3)

    def run(self, addresses: tuple[int, ...]) -> bool:
        """Make the call; False if another thread is at it.

        addresses: of x (T, B, I), y (T, B, D * P), the initial states (layers * D, B, width), the
        final states, all C-contiguous.
        """
        return bool(_run(self._busy, self._records, self._places, addresses))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
