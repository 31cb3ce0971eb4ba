"""The process of one contender: it builds a case, answers for parity, and times its own calls.

Requests `(method, arguments)` come in on stdin, replies `("ok", value)` or `("error", text)` go
out on stdout, both pickled. Started by `process.Worker`, never by hand.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import statistics
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any, BinaryIO

import numpy as np

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Contender, Program
from fastrnn.bench.data import ROTATION, Array, sample
from fastrnn.bench.loop.models import Model

#: Calls at a time of who makes many by itself, to see how long one takes.
REPEATED = 1000
#: Calls at most that are timed one by one.
SINGLE_CALLS = 20_000


def _memory(field: str) -> int | None:
    """VmRSS, what this process holds, or VmHWM, the most it held; bytes, Linux only."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> bool:
    """Have the system count VmHWM anew; whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


class Desk:
    """What a worker does on request."""

    program: Program
    inputs: list[Any]
    turn: Iterator[Any]

    def build(self, contender: Contender, case: Case, threads: int) -> None:
        """Import the contender and give it the case; nothing is run yet."""
        module = importlib.import_module(contender.module)
        self.program = module.build(case, threads, contender.device)
        self._take([self.program.load(sample(case, index)) for index in range(ROTATION)])

    def build_loop(self, model: Model, own: bool, dtype: str) -> None:
        """The same for a model of the suite `loop`, with fastrnn's layers or its framework's."""
        from fastrnn.bench.loop import program

        self.program = program.build(model, own, dtype)
        self._take(program.inputs(model, self.program, ROTATION))

    def _take(self, inputs: list[Any]) -> None:
        self.inputs, self.turn = inputs, cycle(inputs)
        # A full collection of some hundred thousand objects that imports left would take longer
        # than most calls; what the calls themselves leave is collected as ever.
        gc.collect()
        gc.freeze()

    def first(self) -> tuple[float, dict[str, Array]]:
        """The very first call: its seconds, compilation included, and its answer."""
        self._rewind()
        start = perf_counter()
        result = self.program.run(self.inputs[0])
        seconds = perf_counter() - start
        return seconds, self.program.read(result)

    def _rewind(self) -> None:
        """Have a contender that keeps its state take up the one of the first input."""
        getattr(self.program, "rewind", lambda loaded: None)(self.inputs[0])

    def again(self) -> dict[str, Array]:
        """The answer to the same input after others have been through."""
        self._rewind()
        return self.program.read(self.program.run(self.inputs[0]))

    def _loop(self, calls: int) -> float:
        """Seconds of so many calls."""
        repeat = getattr(self.program, "repeat", None)
        if repeat is not None:
            start = perf_counter()
            repeat(calls)
            return perf_counter() - start
        run, inputs = self.program.run, list(islice(self.turn, calls))
        start = perf_counter()
        for given in inputs:
            run(given)
        return perf_counter() - start

    def calibrate(self, seconds: float) -> float:
        """Median seconds of a call, of as many as fit in `seconds`, at least three."""
        calls = REPEATED if hasattr(self.program, "repeat") else 1
        end = perf_counter() + seconds
        taken: list[float] = []
        while len(taken) < 3 or perf_counter() < end:
            taken.append(self._loop(calls) / calls)
        return statistics.median(taken)

    def sample(self, calls: int) -> float:
        """Mean seconds of a call over a loop of `calls`, after as many that do not count.

        While others were timed, caches went cold and threads to sleep: everyone's.
        """
        self._loop(calls)
        return self._loop(calls) / calls

    def single(self, seconds: float) -> dict[str, float] | None:
        """How the seconds of calls timed one by one are spread, the clock's own included.

        None for who is not called one by one. As many calls as fit in `seconds`, at most
        `SINGLE_CALLS`, after some that do not count.
        """
        if hasattr(self.program, "repeat"):
            return None
        run, turn = self.program.run, self.turn
        self._loop(SINGLE_CALLS // 100)
        taken = [0] * SINGLE_CALLS
        end = perf_counter_ns() + int(seconds * 1e9)
        calls = 0
        while calls < SINGLE_CALLS:
            given = next(turn)
            start = perf_counter_ns()
            run(given)
            now = perf_counter_ns()
            taken[calls] = now - start
            calls += 1
            if now > end:
                break
        ordered = np.sort(np.array(taken[:calls])) / 1e9
        found = {f"p{part:g}": float(np.percentile(ordered, part)) for part in (50, 99, 99.9)}
        return found | {"worst": float(ordered[-1])}

    def memory(self) -> int | None:
        """Bytes that a call holds at most beyond what the process holds between calls."""
        # What a contender keeps for its next call is memory that the call takes.
        getattr(self.program, "release", lambda: None)()
        if not _forget_peak():
            return None
        before = _memory("VmRSS")
        self.program.run(next(self.turn))
        after = _memory("VmHWM")
        return None if before is None or after is None else max(0, after - before)

    def shares(self, framework: str, steps: int) -> dict[str, float]:
        """Where the time of a step of a loop goes, as `loop.shares` has it."""
        from fastrnn.bench.loop.shares import measure

        return measure(framework, lambda: self.program.run(next(self.turn)), steps)

    def probe(self, threads: int, dtype: str) -> dict[str, float]:
        """What the machine can do at most, as `probes.probe` has it."""
        from fastrnn.bench.probes import probe

        return probe(threads, dtype)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more."""
    desk = Desk()
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = ("ok", getattr(desk, method)(*arguments))
        except Exception as error:
            reply = ("error", f"{type(error).__name__}: {error}")
        pickle.dump(reply, replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()


def main() -> None:
    """Serve on stdin and stdout; whatever a library prints goes to stderr instead."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
