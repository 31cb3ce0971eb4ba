"""The table of the suite `loop`, and the means below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fastrnn.bench.loop.models import NAME
from fastrnn.bench.loop.run import OWN, Row
from fastrnn.bench.loop.shares import SHARES
from fastrnn.bench.report import FAILED, NONE, disturbances, duration
from fastrnn.bench.results import Results


def pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Of each model fastrnn's row and the framework's."""
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row.model.name, {})[row.contender] = row
    for found in by_name.values():
        own = found.pop(OWN)
        (other,) = found.values()
        yield own, other


def ratio(own: Row, other: Row) -> float | None:
    """The framework's median over fastrnn's: above 1, fastrnn is faster."""
    if own.median_s is None or other.median_s is None:
        return None
    return other.median_s / own.median_s


def _time(row: Row) -> str:
    return FAILED if row.error else duration(row.median_s)


def table(rows: Sequence[Row]) -> Table:
    """One line to a model."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    made.add_column("model", no_wrap=True)
    made.add_column("a step", no_wrap=True)
    titles = ["its own\nlayers", "fastrnn's", "\np99", "own /\nfastrnn's"]
    for title in (*titles, *(f"{share}\n%".replace(" ", "\n", 1) for share in SHARES)):
        made.add_column(title, justify="right", no_wrap=True)
    for own, other in pairs(rows):
        found, shares = ratio(own, other), own.shares
        model = own.model
        what = "train_on_batch" if model.framework == "keras" else "training"
        made.add_row(
            f"{model.name}: {model.about}",
            what if model.training else "inference",
            _time(other),
            _time(own),
            duration(own.p99_s),
            NONE if found is None else f"{found:.2f}",
            *(NONE if shares is None else f"{100 * shares[share]:.0f}" for share in SHARES),
        )
    return made


def means(rows: Sequence[Row]) -> Iterator[str]:
    """Geometric means over the models of a framework, and over its LSTMs."""
    for framework in dict.fromkeys(row.model.framework for row in rows):
        of_framework = [pair for pair in pairs(rows) if pair[0].model.framework == framework]
        lstms = [pair for pair in of_framework if pair[0].model.cell == "lstm"]
        parts = []
        for what, chosen in (("all models", of_framework), ("LSTMs alone", lstms)):
            found = [value for pair in chosen if (value := ratio(*pair)) is not None]
            if found and (chosen is of_framework or len(found) < len(of_framework)):
                parts.append(f"{what} {np.exp(np.mean(np.log(found))):.2f}")
        if parts:
            yield f"{framework}, its own layers' time over fastrnn's: {', '.join(parts)}"


def faults(rows: Sequence[Row]) -> Iterator[str]:
    """A line for every contender that was not timed, with the reason."""
    for row in rows:
        if row.error:
            yield f"{FAILED} {row.model}, layers of {row.contender}: {row.error}"


def headline(machine: Mapping[str, Any]) -> Iterator[str]:
    """What was measured, and on what."""
    versions, threads = machine["versions"], machine["threads"]
    environment = "default environment" if threads is None else f"{threads} threads each"
    yield f"fastrnn {versions['fastrnn']}, suite {NAME}, {environment}, on {machine['cpu']}"
    others = [f"{name} {versions[name]}" for name in ("torch", "keras") if name in versions]
    yield f"beside {' and '.join(others)}; training is forward, loss, backward, clipping and Adam"


def show(results: Results[Row], notes: Sequence[str], console: Console) -> None:
    """Print the headline, the table, the means, the faults, the notes."""
    made = table(results.rows)
    wide = console.measure(made, options=console.options.update(width=1000)).maximum
    console.width = max(console.width, wide)
    for line in headline(results.machine):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(made)
    below = (*means(results.rows), *faults(results.rows), *disturbances(results.machine), *notes)
    for line in below:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
