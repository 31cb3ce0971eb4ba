"""The barrier: nobody passes before all have come, however many there are for how few CPUs."""

import threading

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cpu import barrier

ROUNDS = 200


@njit(nogil=True)
def take_turns(sync, members, member, counts, seen):
    """Count up, meet, and note what the others have counted by then."""
    phase = 0
    for k in range(ROUNDS):
        counts[member] += 1
        phase = barrier.meet(sync, members, phase)
        for other in range(members):
            seen[member, k, other] = counts[other]
        phase = barrier.meet(sync, members, phase)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_all_have_come_before_anyone_passes(members):
    """Five members on fewer CPUs: those without one are waited for asleep."""
    sync, counts = barrier.new(), np.zeros(members, np.int64)
    seen = np.zeros((members, ROUNDS, members), np.int64)
    threads = [
        threading.Thread(target=take_turns, args=(sync, members, member, counts, seen))
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


def test_who_gives_up_lets_the_others_pass():
    sync, counts = barrier.new(), np.zeros(2, np.int64)
    seen = np.zeros((2, ROUNDS, 2), np.int64)
    member = threading.Thread(target=take_turns, args=(sync, 2, 0, counts, seen))
    member.start()
    barrier.give_up(sync)
    member.join(60)
    assert not member.is_alive()
    assert counts[0] == ROUNDS
