"""The pool: every call of every job is made once, and no two callers, fork or exit can hang it."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from fastrnn_kernels.cpu.threads import board, pool
from fastrnn_kernels.cpu.threads.job import WORDS, _fill
from jobs import ENOUGH, calls, team


@pytest.fixture(autouse=True)
def two_threads(many_cpus):
    before = pool.get_num_threads()
    pool.set_num_threads(2)
    pool._pool._grow(1)  # compiles what some tests stand in for
    yield
    pool.set_num_threads(before)


def test_every_call_is_made_once_and_both_threads_take_part():
    """Two calls wait for each other: that takes two threads."""
    seen, one = calls(9, meeting=2)
    pool.run([one], ENOUGH)
    assert np.array_equal(seen, np.ones(9))


def test_the_calls_of_several_jobs():
    made = [calls(many) for many in (3, 1, 7)]
    pool.run([one for _, one in made], ENOUGH)
    for seen, _ in made:
        assert np.array_equal(seen, np.ones(seen.size))


def test_little_work_stays_with_the_caller(monkeypatch):
    monkeypatch.setattr(board, "begin", None)
    seen, one = calls(5)
    pool.run([one], pool.MIN_WORK - 1)
    assert np.array_equal(seen, np.ones(5))


def test_a_single_call_of_some_work_wakes_nobody_but_calls_in_a_loop_do(monkeypatch):
    called = []
    begin = board.begin
    monkeypatch.setattr(board, "begin", lambda *args: called.append(1) or begin(*args))
    monkeypatch.setattr(pool, "LINGER_SECONDS", 5.0)
    monkeypatch.setattr(pool._pool, "_last", -10.0)
    for k in range(3):
        seen, one = calls(4, meeting=2 if k else 0)
        pool.run([one], pool.MIN_WORK)
        assert len(called) == k
        assert np.array_equal(seen, np.ones(4))


def test_two_callers_at_once():
    totals = []

    def call():
        seen, one = calls(5)
        for _ in range(500):
            pool.run([one], ENOUGH)
        totals.append(seen)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert np.array_equal(totals, np.full((4, 5), 500))


def test_the_pool_grows_and_serves_fewer_threads():
    for number in (3, 1, 2, 4):
        pool.set_num_threads(number)
        seen, one = calls(6, meeting=number)
        pool.run([one], ENOUGH)
        assert np.array_equal(seen, np.ones(6))


def test_members_of_a_team_run_at_the_same_time():
    seen = np.zeros(7, np.int64)
    pool.run([team(7, True, seen)], ENOUGH)
    assert seen.tolist() == [2, 2, 0, 0, 0, 0, 0]


def test_an_interrupt_between_calling_and_waking_helpers(monkeypatch):
    """Members wait for each other, so those that were called must come all the same."""
    begin = board.begin

    def interrupted(*arguments):
        begin(*arguments)
        raise KeyboardInterrupt

    threading.Event().wait(0.05)  # until helpers sleep
    seen = np.zeros(2, np.int64)
    monkeypatch.setattr(board, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.run([team(2, True, seen)], ENOUGH)
    assert seen.tolist() == [2, 2]
    monkeypatch.undo()
    pool.set_num_threads(2)
    test_members_of_a_team_run_at_the_same_time()


def test_a_team_may_run_again():
    seen = np.zeros(2, np.int64)
    one = team(2, True, seen)
    for _ in range(3):
        seen[:] = 0
        pool.run([one], ENOUGH)
        assert seen.tolist() == [2, 2]


def test_two_teams_share_the_threads_and_other_calls_follow():
    a, b = np.zeros(2, np.int64), np.zeros(2, np.int64)
    seen, plain = calls(3)
    pool.run([team(2, True, a), team(2, True, b), plain], ENOUGH)
    assert (a.tolist(), b.tolist(), seen.tolist()) == ([1, 0], [1, 0], [1, 1, 1])
    pool.set_num_threads(4)
    pool.run([team(2, True, a), team(2, True, b)], ENOUGH)
    assert (a.tolist(), b.tolist()) == ([2, 2], [2, 2])


def test_a_team_has_one_member_where_the_pool_is_taken():
    seen = np.zeros(2, np.int64)
    words = pool._pool.board
    words[board.OWNER] = board.COMPILED
    try:
        pool.run([team(2, True, seen)], ENOUGH)
    finally:
        words[board.OWNER] = board.FREE
    assert seen.tolist() == [1, 0]


@pytest.mark.parametrize("pause", [0, 1e-4, 1e-3])
def test_helpers_that_listen_and_helpers_that_sleep_are_called(pause):
    """Around the end of a helper's listening, it may fall asleep just as it is called."""
    waiting = threading.Event()
    for _ in range(300):
        seen, one = calls(4, meeting=2)
        pool.run([one], ENOUGH)
        assert np.array_equal(seen, np.ones(4))
        waiting.wait(pause)


def test_idle_helpers_use_no_cpu():
    pool.run([calls(4, meeting=2)[1]], ENOUGH)
    assert pool._pool._helpers
    threading.Event().wait(0.05)  # beyond LINGER_SECONDS
    before = os.times()
    threading.Event().wait(0.5)
    after = os.times()
    assert after.user + after.system - before.user - before.system < 0.1


def test_a_process_may_end_while_helpers_listen():
    script = (
        "import numpy as np, fastrnn\n"
        "fastrnn.set_num_threads(4)\n"
        "fastrnn.LSTM(64, 128)(np.zeros((30, 64, 64), np.float32))\n"
    )
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()


def test_a_block_that_is_too_small_is_refused():
    array = np.zeros((1,) * 30)  # 65 words of addresses, sizes and strides
    with pytest.raises(Exception, match="8 arguments do not fit the record of a job"):
        _fill(np.zeros(WORDS, np.int64), 1, False, *[array] * 8)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="wants two CPUs and a system that ties threads to them",
)
def test_helpers_follow_the_callers_cpus(many_cpus):
    many_cpus.undo()

    def helper_cpus():
        pool._pool.board[board.CPU] = -1  # as when the caller runs on another one
        pool.run([calls(2, meeting=2)[1]], ENOUGH)
        helper = pool._pool._helpers[0]
        return os.sched_getaffinity(helper.native_id)

    before = os.sched_getaffinity(0)
    first, second, *_ = sorted(before)
    try:
        os.sched_setaffinity(0, {first, second})
        assert len(helper_cpus()) == 1, "on the caller's own CPU"
        # A caller with a single CPU works alone: a helper there would only keep it waiting.
        os.sched_setaffinity(0, {second})
        pool._pool.board[board.CPU] = first
        seen = np.zeros(2, np.int64)
        pool.run([team(2, True, seen)], ENOUGH)
        assert seen.tolist() == [1, 0]
        os.sched_setaffinity(0, {first, second})
        assert len(helper_cpus()) == 1
    finally:
        os.sched_setaffinity(0, before)
