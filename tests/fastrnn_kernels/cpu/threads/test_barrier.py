"""The barrier: nobody passes before all have come, however many there are for how few CPUs."""

import threading

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cpu.threads import barrier
from fastrnn_kernels.cpu.threads.job import WORDS

ROUNDS = 200


@njit(nogil=True)
def take_turns(record, members, member, counts, seen):
    """Count up, meet, and note what the others have counted by then."""
    phase = 0
    for k in range(ROUNDS):
        counts[member] += 1
        phase = barrier.meet(record, members, phase)
        for other in range(members):
            seen[member, k, other] = counts[other]
        phase = barrier.meet(record, members, phase)


@pytest.mark.smoke
@pytest.mark.parametrize("members", [1, 2, 5])
def test_all_have_come_before_anyone_passes(members):
    """Five members on fewer CPUs: those without one are waited for asleep."""
    record, counts = np.zeros(WORDS, np.int64), np.zeros(members, np.int64)
    seen = np.zeros((members, ROUNDS, members), np.int64)
    threads = [
        threading.Thread(target=take_turns, args=(record, members, member, counts, seen))
        for member in range(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a member hangs"
    np.testing.assert_array_equal(
        seen, np.broadcast_to(np.arange(1, ROUNDS + 1)[:, None], seen.shape)
    )
