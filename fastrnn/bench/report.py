"""The table that `fastrnn bench` prints, and what stands above and below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fastrnn.bench.cases import SUITES, Case
from fastrnn.bench.contender import Contender
from fastrnn.bench.contenders import BUILT_IN, COMPILED
from fastrnn.bench.results import Results, Row

NONE = "–"
#: Stands in the report where a contender was wrong or gave no answer, and nowhere else.
FAILED = "FAILED"
#: Stands where a contender's own time limit ran out.
LATE = "too long"
#: Load average from which on a run is said to be disturbed.
BUSY = 0.5
#: What is said of calls timed one by one.
SINGLE = ("p50", "p99", "p99.9", "worst")


def duration(seconds: float | None) -> str:
    """Three digits and the unit that suits them."""
    if seconds is None:
        return NONE
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:  # what three digits make 1 of
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _time(row: Row | None) -> str:
    if row is None:
        return NONE
    if row.error:
        return FAILED if row.failed else LATE
    # of who takes long to compile, how long
    after = f" after {duration(row.compile_s)}" if row.contender.limit else ""
    return duration(row.median_s) + after


def _number(value: float | None, shown: str) -> str:
    return NONE if value is None else format(value, shown)


def _field(row: Row | None, name: str, shown: str) -> str:
    return _number(getattr(row, name, None), shown)


def _steps(own: Row | None, compiled: Row | None) -> list[str]:
    """Of single steps: the time in compiled code, and how calls from Python are spread."""
    spread = (own and own.single) or {}
    return [_time(compiled), *(duration(spread.get(part)) for part in SINGLE)]


def ratio(own: Row | None, peers: Sequence[Row]) -> float | None:
    """Median of the fastest peer over that of fastrnn: above 1, fastrnn is faster."""
    times = [row.median_s for row in peers if row.median_s is not None]
    if own is None or own.median_s is None or not times:
        return None
    return min(times) / own.median_s


def table(rows: Sequence[Row], peers: Sequence[Contender]) -> Table:
    """One line to a case."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    for title in ("cell", "T,B,I,H", "pass"):
        made.add_column(title, no_wrap=True)
    stepwise = any(row.case.stepwise for row in rows)
    titles = ["fastrnn\nCPU"]
    titles += ["in compiled\ncode", *SINGLE] if stepwise else ["\np99"]
    titles += ["fastrnn\nCUDA", "GFLOP/s", "% of\npeak", "% of\nroof"]
    beside = any(row.contender == BUILT_IN for row in rows)
    titles += ["built-in", "built-in\n/ written"] if beside else []
    titles += [peer.name for peer in peers]
    for title in [*titles, "best peer\n/ fastrnn", "compile\ns"]:
        made.add_column(title, justify="right", no_wrap=True)
    by_case: dict[Case, dict[tuple[str, str], Row]] = {}
    for row in rows:
        contender = row.contender
        by_case.setdefault(row.case, {})[contender.name, contender.device] = row
    for case, found in by_case.items():
        on_cpu, on_gpu = found.get(("fastrnn", "cpu")), found.get(("fastrnn", "cuda"))
        compiled, own = found.get((COMPILED.name, "cpu")), on_cpu or on_gpu
        others = [found.get((peer.name, peer.device)) for peer in peers]
        built_in = found.get((BUILT_IN.name, "cpu"))
        both = [_time(built_in), _number(ratio(own, [built_in] if built_in else []), ".2f")]
        made.add_row(
            case.title,
            str(case.shape),
            case.pass_ if case.threads is None else f"{case.pass_}, {case.threads} threads",
            _time(on_cpu),
            *(_steps(own, compiled) if stepwise else [duration(own.p99_s if own else None)]),
            _time(on_gpu),
            _field(own, "gflops", ".3g"),
            _field(own, "of_peak", ".0%"),
            _field(own, "of_roof", ".0%"),
            *(both if beside else []),
            *map(_time, others),
            _number(ratio(own, [row for row in others if row]), ".2f"),
            _field(own, "compile_s", ".2f"),
        )
    return made


def _suite(cases: Sequence[Case]) -> str:
    """The suite, or the shapes that the user named, which are called as the suite's are."""
    if any(case.suite == "cells" for case in cases):
        return "suite cells"
    suite = SUITES[cases[0].suite]
    own = any(case.shape not in suite.shapes_of(case.cell) for case in cases)
    return f"shapes of your own as in suite {cases[0].suite}" if own else f"suite {cases[0].suite}"


def headline(
    machine: Mapping[str, Any], cases: Sequence[Case], peers: Sequence[Contender]
) -> list[str]:
    """What was measured on, what this machine can do at most, and who else took part."""
    probes, versions = machine["probes"], machine["versions"]
    reads = ", ".join(f"{level} {probes[level] / 1e9:.0f}" for level in probes if level != "fma")
    against = [f"{peer.name} {versions.get(peer.name, '')}".strip() for peer in peers]
    return [
        f"fastrnn {versions['fastrnn']}, {_suite(cases)}, {cases[0].dtype}, "
        f"{machine['threads']} threads each, on {machine['cpu']}",
        f"peers: {', '.join(against) or 'none'}",
        f"this machine: {probes['fma'] / 1e9:.0f} GFLOP/s of fused multiply-adds; "
        f"reads in GB/s: {reads}",
    ]


def disturbances(machine: Mapping[str, Any]) -> list[str]:
    """What may have made the times longer than they are."""
    found = []
    if not machine["stops"]:
        found.append("this system cannot stop a process: idle contenders may have slowed others")
    if machine["load"] is not None and machine["load"] > BUSY:
        found.append(
            f"the machine was busy before the run (load {machine['load']:.1f}): what else runs "
            "on it slows all, and most those whose threads wait for one another"
        )
    return found


def faults(rows: Sequence[Row]) -> list[str]:
    """A line for every contender that was not timed, with the reason."""
    return [
        f"{FAILED} {row.case} {row.contender.dtype(row.case)}, "
        f"{row.contender.name} on {row.contender.device}: {row.error}"
        for row in rows
        if row.failed
    ]


def late(rows: Sequence[Row]) -> list[str]:
    """A line for every contender whose own time limit ran out."""
    return [
        f"{row.case}: {row.contender.name} {row.error}"
        for row in rows
        if row.error and not row.failed
    ]


def defined(definitions: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every cell whose definition was measured."""
    return [
        f"{one['cell']}: defined in {duration(one['define_s'])}; forward and backward from an "
        f"empty cache {duration(one['first_s'])}, {one['compiled']} functions compiled "
        f"({duration(one['cpu_s'])} of CPU time); in a second process "
        f"{duration(one['again_s'])}, {one['compiled_again']} compiled"
        for one in definitions
    ]


def show(
    results: Results[Row],
    peers: Sequence[Contender],
    notes: Sequence[str],
    console: Console,
) -> None:
    """Print the headline, the table, the faults, the notes."""
    made = table(results.rows, peers)
    # Where the window is too narrow, or there is none, lines run on instead of losing columns.
    wide = console.measure(made, options=console.options.update(width=1000)).maximum
    console.width = max(console.width, wide)
    for line in headline(results.machine, [row.case for row in results.rows], peers):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(made)
    told = [*faults(results.rows), *late(results.rows), *defined(results.definitions)]
    for line in (*told, *disturbances(results.machine), *notes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
