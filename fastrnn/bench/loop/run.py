"""A run of the suite: each model with its framework's layers and with fastrnn's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastrnn.bench import parity, timing
from fastrnn.bench.loop.models import NAME, Model
from fastrnn.bench.process import Worker, WorkerError

OWN = "fastrnn"
#: How long steps are tried out before they are timed.
CALIBRATION_SECONDS = 0.5
#: A sample, and the steps before it that do not count. In a loop one step follows another: threads
#: that were stopped while others were timed have long been awake again.
SAMPLE_SECONDS = 0.15
#: Processes of each contender, one after the other: where the system happens to put the memory of
#: one makes its steps up to a quarter longer than those of the next.
PROCESSES = 3
#: Timing of a model with each of them, both contenders together.
SECONDS = 4.0
#: Steps whose time is divided among shares.
SHARED_STEPS = 40


@dataclass(frozen=True)
class Row:
    """One contender with one model; either `error` is None or the numbers are.

    contender: "fastrnn", or the framework's name for its own layers. shares: of the time of a
    step, fastrnn's alone.
    """

    model: Model
    contender: str
    median_s: float | None = None
    p99_s: float | None = None
    compile_s: float | None = None
    samples: int = 0
    calls: int = 0
    memory: int | None = None
    shares: Mapping[str, float] | None = None
    error: str | None = None
    taken: tuple[float, ...] = ()  # the samples

    @property
    def failed(self) -> bool:
        """Whether its numbers were wrong, or there were none."""
        return self.error is not None

    def as_json(self) -> dict[str, Any]:
        """The row as the docstring of `fastrnn.bench.results` shows it."""
        return {
            "suite": NAME,
            "model": self.model.name,
            "about": self.model.about,
            "framework": self.model.framework,
            "cell": self.model.cell,
            "training": self.model.training,
            "threads": None,
            "contender": self.contender,
            "median_s": self.median_s,
            "p99_s": self.p99_s,
            "compile_s": self.compile_s,
            "samples": self.samples,
            "calls": self.calls,
            "memory_bytes": self.memory,
            "shares": None if self.shares is None else dict(self.shares),
            "error": self.error,
        }


class _Race:
    """One model: the processes of those still in the race, and what is known so far."""

    def __init__(self, model: Model, stack: ExitStack, threads: int | None, timeout: float) -> None:
        self.model = model
        self.rows = {name: Row(model, name) for name in (OWN, model.framework)}
        self.workers = {name: stack.enter_context(Worker(threads, timeout)) for name in self.rows}
        self._reference = stack.enter_context(Worker(threads, timeout))

    def out(self, contender: str, error: str) -> None:
        """Take a contender out, and end its process."""
        self.rows[contender] = Row(self.model, contender, error=error)
        self.workers.pop(contender).close()

    def _truth(self) -> list[Any]:
        """The framework's own answers in float64, with the parameters' first and second values."""
        self._reference.ask("build_loop", self.model, False, "float64")
        return [self._reference.ask("first")[1], self._reference.ask("again")]

    def check(self) -> None:
        """Compare answers, first of a fresh process, then after steps, with other parameters."""
        for name, worker in self.workers.items():
            worker.send("build_loop", self.model, name == OWN, "float32")
        for name, worker in list(self.workers.items()):
            try:
                worker.receive()
            except WorkerError as error:
                self.out(name, str(error))
        try:
            first, again = self._truth()
        except WorkerError as error:
            for name in list(self.workers):
                self.out(name, f"there is no answer to compare with: {error}")
        for name, worker in list(self.workers.items()):
            tolerance = parity.TOLERANCE if name == OWN else parity.PEER_TOLERANCE
            wrong_in = partial(parity.difference, dtype="float32", tolerance=tolerance)
            try:
                first_s, answer = worker.ask("first")
                wrong = wrong_in(answer, first)
                if wrong is None:
                    median_s = worker.ask("calibrate", CALIBRATION_SECONDS)
                    wrong = wrong_in(worker.ask("again"), again)
            except WorkerError as error:
                wrong = str(error)
            if wrong is not None:
                self.out(name, wrong)
                continue
            calls = max(1, round(SAMPLE_SECONDS / max(median_s, 1e-6)))
            compile_s = max(0.0, first_s - median_s)
            self.rows[name] = replace(self.rows[name], compile_s=compile_s, calls=calls)

    def time(self, seconds: float) -> None:
        """Take samples in turn and fill the rows in."""
        take = {
            name: partial(worker.ask, "sample", self.rows[name].calls)
            for name, worker in self.workers.items()
        }
        samples, errors = timing.rotate(take, seconds, dropped=(WorkerError,))
        for name, error in errors.items():
            self.out(name, str(error))
        for name, taken in samples.items():
            worker = self.workers[name]
            shares = None
            if name == OWN:
                shares = worker.ask("shares", self.model.framework, SHARED_STEPS)
            self.rows[name] = replace(
                self.rows[name],
                taken=tuple(taken),
                memory=worker.ask("memory"),
                shares=shares,
            )


def _joined(rows: Sequence[Row]) -> Row:
    """What the processes of a contender have found: of all samples, and the first compilation."""
    failed = next((row for row in rows if row.error), None)
    if failed is not None:
        return failed
    taken = [one for row in rows for one in row.taken]
    shares = [row.shares for row in rows if row.shares is not None]
    memory = [row.memory for row in rows if row.memory is not None]
    return replace(
        rows[0],
        median_s=timing.median(taken),
        p99_s=timing.p99(taken),
        samples=len(taken),
        memory=max(memory, default=None),
        shares={name: sum(one[name] for one in shares) / len(shares) for name in shares[0]}
        if shares
        else None,
        taken=tuple(taken),
    )


def run(
    models: Sequence[Model],
    threads: int | None,
    timeout: float,
    done: Callable[[Model], Any] = lambda model: None,
    seconds: float = SECONDS,
) -> list[Row]:
    """Measure all these models; `done` is called after each.

    Args:
        models: what to measure.
        threads: of each contender; None for the default environment.
        timeout: seconds that a contender may take for one answer.
        done: called after each model.
        seconds: what the timing of a model may take in each of PROCESSES.
    """
    rows: list[Row] = []
    for model in models:
        found: dict[str, list[Row]] = {}
        for _ in range(PROCESSES):
            with ExitStack() as stack:
                race = _Race(model, stack, threads, timeout)
                race.check()
                race.time(seconds)
            for name, row in race.rows.items():
                found.setdefault(name, []).append(row)
            if any(row.error for row in race.rows.values()):
                break  # more of them would fail, and take their time
        rows += map(_joined, found.values())
        done(model)
    return rows
