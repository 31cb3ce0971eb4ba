"""The pool: all tasks run, errors arrive, and no two callers or a fork can hang it."""

import os
import threading

import pytest
from numba import njit

from fastrnn_kernels.cpu import barrier, threads

ENOUGH = float(threads.MIN_WORK)


@pytest.fixture(autouse=True)
def two_threads():
    before = threads.get_num_threads()
    threads.set_num_threads(2)
    yield
    threads.set_num_threads(before)


def test_every_task_runs_once_and_both_threads_take_part():
    seen, meeting = [], threading.Barrier(2, timeout=60)

    def meet(k):
        if k < 2:
            meeting.wait()  # opens only if two threads are at it
        seen.append(k)

    threads.run([lambda k=k: meet(k) for k in range(9)], ENOUGH)
    assert sorted(seen) == list(range(9))


def test_little_work_stays_with_the_caller():
    names = set()
    tasks = [lambda: names.add(threading.current_thread().name)] * 5
    threads.run(tasks, ENOUGH - 1)
    assert names == {threading.current_thread().name}


@pytest.mark.parametrize("position", [0, 3])
def test_an_error_in_a_task_reaches_the_caller_and_the_pool_goes_on(position):
    def fail():
        raise KeyError("a task's own")

    tasks = [lambda: None] * 4
    tasks[position] = fail
    with pytest.raises(KeyError, match="a task's own"):
        threads.run(tasks, ENOUGH)
    test_every_task_runs_once_and_both_threads_take_part()


def test_a_task_may_call_from_within():
    seen = []
    threads.run(
        [lambda: threads.run([lambda: seen.append(1)] * 3, ENOUGH)] * 4,
        ENOUGH,
    )
    assert len(seen) == 12


def test_two_callers_at_once():
    seen, callers = [], []
    for _ in range(4):
        callers.append(
            threading.Thread(
                target=lambda: [
                    threads.run([lambda: seen.append(1)] * 5, ENOUGH) for _ in range(50)
                ]
            )
        )
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(seen) == 4 * 50 * 5


def test_the_pool_grows_and_serves_fewer_threads():
    for number in (3, 1, 2, 4):
        threads.set_num_threads(number)
        seen = []
        threads.run([lambda: seen.append(1)] * 6, ENOUGH)  # noqa: B023
        assert len(seen) == 6


def test_members_of_a_team_run_at_the_same_time():
    seen, meeting = [], threading.Barrier(2, timeout=60)

    def task(member, members, sync):
        seen.append((member, members))
        if members > 1:
            meeting.wait()

    threads.run([threads.Team(7, task)], ENOUGH)
    assert sorted(seen) == [(0, 2), (1, 2)]


def test_two_teams_share_the_threads_and_plain_tasks_follow():
    seen = []
    teams = [
        threads.Team(2, lambda member, members, sync, team=team: seen.append((team, members)))
        for team in "ab"
    ]
    threads.run([lambda: seen.append("task"), *teams], ENOUGH)
    assert sorted(map(str, seen)) == ["('a', 1)", "('b', 1)", "task"]
    threads.set_num_threads(4)
    seen.clear()
    threads.run(teams, ENOUGH)
    assert sorted(seen) == [("a", 2), ("a", 2), ("b", 2), ("b", 2)]


def test_a_team_has_one_member_where_the_pool_is_taken():
    seen = []

    def inner():
        threads.run([threads.Team(2, lambda *found: seen.append(found[:2]))], ENOUGH)

    threads.run([inner, inner], ENOUGH)
    assert seen == [(0, 1)] * 2


def test_an_error_in_one_member_lets_the_others_pass():
    """Without that they would wait for it for ever."""

    @njit(nogil=True)
    def wait(sync):
        barrier.meet(sync, 2, 0)

    def task(member, members, sync):
        if member == 1:
            raise KeyError("a member's own")
        wait(sync)

    wait.compile("(int64[::1],)")
    with pytest.raises(KeyError, match="a member's own"):
        threads.run([threads.Team(2, task)], ENOUGH)
    test_members_of_a_team_run_at_the_same_time()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="wants two CPUs and a system that ties threads to them",
)
def test_helpers_follow_the_callers_cpus():
    def helper_cpus():
        threads.run([lambda: None] * 2, ENOUGH)
        (helper, *_) = threads._pool._helpers
        return os.sched_getaffinity(helper._thread.native_id)

    before = os.sched_getaffinity(0)
    first, second, *_ = sorted(before)
    try:
        os.sched_setaffinity(0, {first})
        assert helper_cpus() == {first}, "off the CPUs that the caller may use"
        os.sched_setaffinity(0, {first, second})
        assert len(helper_cpus()) == 1, "on the caller's own CPU"
        os.sched_setaffinity(0, {second})
        assert helper_cpus() == {second}
    finally:
        os.sched_setaffinity(0, before)
