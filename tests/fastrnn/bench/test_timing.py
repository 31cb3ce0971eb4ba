import itertools

import numpy as np
import pytest

from fastrnn.bench import timing


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def contender(name, clock, seconds, log):
    def take():
        clock.now += seconds
        log.append(name)
        return seconds

    return take


@pytest.mark.smoke
def test_samples_are_taken_in_turn_and_everyone_is_first_once():
    clock, log = Clock(), []
    take = {name: contender(name, clock, 1.0, log) for name in "abc"}
    samples, errors = timing.rotate(take, 0.0, clock=clock)
    assert "".join(log) == "abc" "bca" "cab"  # fmt: skip
    assert samples == {name: [1.0] * timing.MIN_ROUNDS for name in "abc"}
    assert not errors


def test_it_stops_when_the_time_is_over_but_not_in_mid_round():
    clock, log = Clock(), []
    take = {name: contender(name, clock, 1.0, log) for name in "ab"}
    samples, _ = timing.rotate(take, 15.0, clock=clock)
    assert [len(taken) for taken in samples.values()] == [8, 8]


def test_it_stops_at_the_most_rounds():
    samples, _ = timing.rotate({"a": lambda: 0.0}, 1e9, clock=Clock())
    assert len(samples["a"]) == timing.MAX_ROUNDS


def test_one_that_fails_is_dropped_and_the_others_go_on():
    clock, log, calls = Clock(), [], itertools.count()

    def fails():
        if next(calls) == 2:
            raise OSError("gone")
        return 1.0

    take = {"good": contender("good", clock, 1.0, log), "bad": fails}
    samples, errors = timing.rotate(take, 0.0, dropped=(OSError,), clock=clock)
    assert samples.keys() == {"good"}
    assert len(samples["good"]) == timing.MIN_ROUNDS
    assert str(errors["bad"]) == "gone"


def test_nobody_left_is_no_hang():
    def fails():
        raise OSError("gone")

    samples, errors = timing.rotate({"bad": fails}, 1e9, dropped=(OSError,))
    assert samples == {}
    assert errors.keys() == {"bad"}


def test_other_exceptions_are_not_swallowed():
    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        timing.rotate({"bad": fails}, 1.0, dropped=(OSError,))


@pytest.mark.parametrize(
    ("seconds", "calls"), [(1.0, 1), (1.1e-3, 1), (1e-3, 1), (0.4e-3, 3), (3e-6, 334)]
)
def test_a_sample_is_a_millisecond_or_one_call(seconds, calls):
    assert timing.calls_per_sample(seconds) == calls


def test_a_clock_that_shows_nothing_asks_for_no_endless_sample():
    assert timing.calls_per_sample(0.0) == 100_000


def test_median_and_p99():
    samples = [float(n) for n in np.random.default_rng(0).permutation(101)]
    assert timing.median(samples) == 50.0
    assert timing.p99(samples) == 99.0
    assert timing.median([1.0, 2.0]) == 1.5
    assert timing.p99([3.0]) == 3.0


def test_a_budget_without_a_total_gives_every_case_the_same():
    budget = timing.Budget(3, 2.5, None, Clock())
    assert [budget.next() for _ in range(3)] == [2.5, 2.5, 2.5]


def run_suite(around, compilation=0.0):
    clock = Clock()
    budget = timing.Budget(10, 5.0, 40.0, clock)
    given = []
    for number in range(10):
        clock.now += around
        if number == 0:
            clock.now += compilation
            budget.excuse(compilation)
        given.append(budget.next())
        clock.now += given[-1]
    return given, clock.now


def test_a_budget_with_a_total_is_kept():
    given, end = run_suite(around=1.0)
    assert end == pytest.approx(40.0)
    assert max(given) <= 5.0


def test_a_budget_leaves_every_case_its_least():
    given, end = run_suite(around=10.0)
    assert given == [timing.Budget.LEAST] * 10
    assert end == pytest.approx(103.0)


def test_compilation_is_not_charged_to_the_budget():
    assert run_suite(1.0, compilation=70.0)[0] == pytest.approx(run_suite(1.0)[0])
