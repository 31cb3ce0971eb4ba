"""The barrier of a team, whose members compute one step together, inside compiled code.

It spins, as the others are a fraction of a microsecond away, and sleeps in short naps once
they are not: a member may have lost its CPU.
"""

from numba import njit

from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.isa.inlined import NO_WRAPPERS, inlined
from fastrnn_kernels.cpu.threads.job import ARRIVALS


@njit(**NO_WRAPPERS)
def _meet(record, wanted):  # type: ignore[no-untyped-def]
    atomic.add(record, ARRIVALS, 1)
    looks = 0
    while atomic.load(record, ARRIVALS) < wanted:
        looks = atomic.wait(looks)


@inlined
def meet(record, members, phase):  # type: ignore[no-untyped-def]
    """Wait until all members have come for the next phase; its number."""
    if members > 1:
        _meet(record, (phase + 1) * members)
    return phase + 1
