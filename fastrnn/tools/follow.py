"""A model along a signal: `fastrnn stream`."""

from time import perf_counter_ns
from typing import Any

import numpy as np

from fastrnn.models.streamable import Streamable
from fastrnn.tools.signals import PIPE, Reader, Writer


def follow(
    model: Streamable[Any],
    source: str,
    target: str,
    *,
    block: int = 1,
    rate: float | None = None,
    weights: str | None = None,
    quiet: bool = False,
) -> None:
    """Read a signal, run a model over it, write what comes out, and tell how long it took.

    weights: how they are stored, as `stream` has it.

    Raises SignalError, a ValueError, or OSError for files that do not fit or cannot be used.
    """
    stream = model.stream(weights=weights)
    stream.warmup()
    reader = Reader(source, stream.input_size, stream.dtype)
    times: list[int] = []
    try:
        rate = rate or reader.rate
        sample = reader.sample or "i2"
        writer = Writer(target, stream.output_size, stream.dtype, rate, sample)
        try:
            steps = _run(stream, reader, writer, block, times, quiet or target == PIPE)
            writer.finish()
        finally:
            writer.abandon()  # of what was finished there is nothing left to leave behind
    finally:
        reader.close()
    if not quiet:
        _report(times, steps, block, rate)


def _run(
    stream: Any, reader: Reader, writer: Writer, many: int, times: list[int], quiet: bool
) -> int:
    from rich.console import Console
    from rich.progress import Progress

    steps = shown = 0
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task("steps", total=reader.steps)
        for X in reader.blocks(many):
            start = perf_counter_ns()
            y = stream.step(X[0])[None] if many == 1 else stream.block(X)
            times.append(perf_counter_ns() - start)
            writer.write(y)
            steps += len(X)
            if start - shown > 50_000_000:  # a bar that moves oftener costs more than steps do
                progress.update(task, completed=steps)
                shown = start
    return steps


def _report(times: list[int], steps: int, many: int, rate: float | None) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not times:
        console.print("no steps")
        return
    taken = np.array(times) / 1e3
    total = taken.sum() / 1e6
    lines = [f"{steps:,} steps in {total:.3f} s: {total / steps * 1e6:.2f} µs a step"]
    if rate:
        lines.append(f"real-time factor {total * rate / steps:.4f} at {rate:g} steps a second")
    p50, p99, p999 = np.percentile(taken, (50, 99, 99.9))
    what = "step" if many == 1 else f"call of {many} steps"
    lines.append(
        f"a {what}: p50 {p50:.2f} µs, p99 {p99:.2f} µs, p99.9 {p999:.2f} µs, "
        f"worst {taken.max():.2f} µs"
    )
    for line in lines:
        console.print(line)
