"""Who is timed when, and what is made of the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

import numpy as np

#: A sample shorter than this would measure the clock and the way to it.
SAMPLE_SECONDS = 1e-3
#: Rounds a case gets even when they take longer than planned, and at most.
MIN_ROUNDS, MAX_ROUNDS = 3, 400

Key = TypeVar("Key")


def calls_per_sample(seconds_per_call: float) -> int:
    """Calls that make a sample long enough to time; chosen once for a contender and a case."""
    return max(1, math.ceil(SAMPLE_SECONDS / max(seconds_per_call, 1e-8)))


def rotate(
    take: Mapping[Key, Callable[[], float]],
    seconds: float,
    dropped: tuple[type[Exception], ...] = (),
    clock: Callable[[], float] = perf_counter,
) -> tuple[dict[Key, list[float]], dict[Key, Exception]]:
    """Take samples in turn until `seconds` are over.

    Each round starts with another contender, so that none is always the one behind the slowest.

    Args:
        take: takes one sample of a contender.
        seconds: when to stop, if `MIN_ROUNDS` are done by then.
        dropped: exceptions that put a contender out of the rotation.
        clock: in seconds.

    Returns:
        The samples of those that went through, and why the others did not.
    """
    samples: dict[Key, list[float]] = {key: [] for key in take}
    errors: dict[Key, Exception] = {}
    end = clock() + seconds
    for turn in range(MAX_ROUNDS):
        if not samples or (turn >= MIN_ROUNDS and clock() >= end):
            break
        keys = list(samples)
        first = turn % len(keys)
        for key in keys[first:] + keys[:first]:
            try:
                samples[key].append(take[key]())
            except dropped as error:
                errors[key] = error
                del samples[key]
    return samples, errors


def median(samples: list[float]) -> float:
    """The middle sample."""
    return float(np.median(samples))


def p99(samples: list[float]) -> float:
    """The 99th percentile, interpolated; of less than a hundred samples, near the slowest."""
    return float(np.percentile(samples, 99))


class Budget:
    """Seconds for each case, cut where a suite would else take too long.

    Args:
        cases: how many are to come.
        each: seconds of timing that a case gets.
        total: seconds for all of them, from now on; None for no limit.
        clock: in seconds.
    """

    #: What a case gets however late it is.
    LEAST = 0.3

    def __init__(
        self,
        cases: int,
        each: float,
        total: float | None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.left = cases
        self.done = 0
        self.each = each
        self.clock = clock
        self.start = clock()
        self.total = total
        self.timed = 0.0
        self.excused = 0.0

    def excuse(self, seconds: float) -> None:
        """Do not count these: compilation, which only the first run has."""
        self.excused += seconds

    def next(self) -> float:
        """Seconds of timing for the next case, once its contenders are ready."""
        seconds = self.each
        if self.total is not None:
            spent = self.clock() - self.start - self.excused
            # all that is not timing: starting processes, checking their answers
            around = (spent - self.timed) / (self.done + 1)
            share = (self.total - spent - around * (self.left - 1)) / self.left
            seconds = min(self.each, max(self.LEAST, share))
        self.left -= 1
        self.done += 1
        self.timed += seconds
        return seconds
