"""Jobs that note which of their calls were made, and by how many."""

import numpy as np

from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.threads import barrier, pool
from fastrnn_kernels.cpu.threads.job import job

ENOUGH = float(pool.WAKING_WORK)


@job("test-count")
def count(arguments):
    """Mark the call; the first `meeting` calls wait until so many are there."""

    def run(record, number, members):
        seen, meeting = arguments(record)
        if number < meeting[0]:
            atomic.add(meeting, 1, 1)
            looks = 0
            while atomic.load(meeting, 1) < meeting[0]:
                looks = atomic.wait(looks)
        atomic.add(seen, number, 1)

    return run


@job("test-team")
def team(arguments):
    """Note the members, and meet."""

    def run(record, number, members):
        (seen,) = arguments(record)
        seen[number] = members
        barrier.meet(record, members, 0)

    return run


def calls(many, meeting=0):
    seen = np.zeros(many, np.int64)
    return seen, count(many, False, seen, np.array([meeting, 0]))
