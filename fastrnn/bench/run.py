"""A run: every case with every contender, the gate first, the clock after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastrnn.bench import parity, roofline, timing
from fastrnn.bench.cases import SUITES, Case
from fastrnn.bench.contender import Contender
from fastrnn.bench.process import LateError, Worker, WorkerError
from fastrnn.bench.results import Row

#: How long a contender's calls are tried out before they are timed.
CALIBRATION_SECONDS = 0.02
#: How long a contender's single calls are timed one by one, where a call is a step.
SINGLE_SECONDS = 0.5


@dataclass(frozen=True)
class Settings:
    """What holds for all cases of a run.

    Attributes:
        threads: of each contender.
        timeout: seconds that a contender may take for one answer.
        probes: what `probe` gave.
        caches: what `machine.cache_bytes` gave.
    """

    threads: int
    timeout: float
    probes: Mapping[str, float]
    caches: Mapping[str, int]


def probe(threads: int, dtype: str, timeout: float) -> dict[str, float]:
    """The machine's limits, measured in a process of their own.

    Raises:
        WorkerError: if that process does not get there.
    """
    with Worker(threads, timeout) as worker:
        found: dict[str, float] = worker.ask("probe", threads, dtype)
        return found


class _Race:
    """One case: its contenders' processes, and for each what is known so far."""

    def __init__(self, case: Case, contenders: Sequence[Contender]) -> None:
        self.case = case
        self.rows = {contender: Row(case, contender) for contender in contenders}
        self.workers: dict[Contender, Worker] = {}

    def each(self) -> Iterator[tuple[Contender, Worker]]:
        """Those still in the race; one that fails in the loop's body has to be told to `out`."""
        yield from list(self.workers.items())

    def out(self, contender: Contender, error: str, fault: bool = True) -> None:
        """Take a contender out, and end its process at once: it may be spinning."""
        self.rows[contender] = Row(self.case, contender, error=error, fault=fault)
        self.workers.pop(contender).close()

    def start(self, stack: ExitStack, settings: Settings) -> None:
        """Start all processes side by side: what they import now is not timed."""
        threads = self.case.threads or settings.threads
        for contender in self.rows:
            worker = stack.enter_context(Worker(threads, settings.timeout))
            self.workers[contender] = worker
            worker.send("build", contender, self.case, threads)

    def check(self) -> None:
        """Compare the first answer and, once other inputs went through, another to the same."""
        want = parity.truth(self.case)
        for contender, worker in self.each():
            try:
                worker.receive()
            except WorkerError as error:
                self.out(contender, str(error))
        for contender, worker in self.each():
            wrong_in = partial(
                parity.difference,
                want=want,
                dtype=contender.dtype(self.case),
                tolerance=parity.TOLERANCE if contender.own else parity.PEER_TOLERANCE,
            )
            fault = True
            try:
                worker.send("first")
                first_s, answer = worker.receive(contender.limit)
                wrong = wrong_in(answer)
                if wrong is None:
                    median_s = worker.ask("calibrate", CALIBRATION_SECONDS)
                    answer = worker.ask("again")
                    wrong = wrong_in(answer)
            except WorkerError as error:
                wrong = str(error)
                fault = contender.limit is None or not isinstance(error, LateError)
            if wrong is not None:
                self.out(contender, wrong, fault)
                continue
            self.rows[contender] = replace(
                self.rows[contender],
                compile_s=max(0.0, first_s - median_s),
                calls=timing.calls_per_sample(median_s),
            )

    def time(self, seconds: float, settings: Settings) -> None:
        """Take samples in turn and fill the rows in."""
        take = {
            contender: partial(worker.ask, "sample", self.rows[contender].calls)
            for contender, worker in self.each()
        }
        samples, errors = timing.rotate(take, seconds, dropped=(WorkerError,))
        for contender, error in errors.items():
            self.out(contender, str(error))
        memory = {contender: worker.ask("memory") for contender, worker in self.each()}
        single = {
            contender: worker.ask("single", SINGLE_SECONDS) if self.case.stepwise else None
            for contender, worker in self.each()
        }
        threads = self.case.threads or settings.threads
        # The probes are of all threads together.
        probes = {name: rate * threads / settings.threads for name, rate in settings.probes.items()}
        roof_s = roofline.seconds(self.case, probes, settings.caches, threads)
        peak_s = self.case.flops / probes["fma"]
        for contender, taken in samples.items():
            median_s = timing.median(taken)
            self.rows[contender] = replace(
                self.rows[contender],
                median_s=median_s,
                p99_s=timing.p99(taken),
                of_roof=roof_s / median_s,
                of_peak=peak_s / median_s,
                samples=len(taken),
                memory=memory[contender],
                single=single[contender],
            )


def run(
    cases: Sequence[Case],
    contenders: Sequence[Contender],
    settings: Settings,
    done: Callable[[Case], Any] = lambda case: None,
) -> list[Row]:
    """Measure all cases of one suite.

    Args:
        cases: what to measure.
        contenders: who; one that does not take a case has no row for it.
        settings: threads, limits, timeouts.
        done: called after each case.

    Returns:
        The rows, case by case, in the order of the contenders.
    """
    suite = SUITES[cases[0].suite]
    budget = timing.Budget(len(cases), suite.seconds, suite.total_seconds)
    rows: list[Row] = []
    for case in cases:
        race = _Race(case, [contender for contender in contenders if contender.takes(case)])
        with ExitStack() as stack:
            race.start(stack, settings)
            race.check()
            budget.excuse(sum(row.compile_s or 0.0 for row in race.rows.values()))
            race.time(budget.next(), settings)
        rows += race.rows.values()
        done(case)
    return rows
