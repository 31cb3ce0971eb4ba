"""What `fastrnn bench` does with its options."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import fastrnn
from fastrnn.bench import machine
from fastrnn.bench.cases import WRITTEN, Case
from fastrnn.bench.contender import Contender
from fastrnn.bench.contenders import BUILT_IN, COMPILED, OWN, PEERS, peer
from fastrnn.bench.defining import measure as measure_definition
from fastrnn.bench.loop import run as loop
from fastrnn.bench.loop.models import Model
from fastrnn.bench.process import CAN_STOP
from fastrnn.bench.results import Results, Row
from fastrnn.bench.run import Settings, probe, run
from fastrnn_kernels.cpu.device import available_cpus


class DeviceUnavailableError(Exception):
    """The device asked for cannot be used; the text says why."""


@dataclass(frozen=True)
class Field:
    """Who takes part, and what is to be said about those who do not."""

    own: tuple[Contender, ...]
    peers: tuple[Contender, ...]
    notes: tuple[str, ...]


def _absence(contender: Contender) -> str:
    names = " and ".join(contender.missing)
    if contender in PEERS.values():
        return f"{names} not installed (pip install {' '.join(contender.missing)})"
    return f"no module named {names}"


def _limits(peers: Sequence[Contender], cases: Sequence[Case]) -> list[str]:
    """Why some peers have no number in some rows."""
    found = []
    for one in peers:
        lacks = dict.fromkeys(
            case.title for case in cases if not one.has(case.cell) and case.cell not in WRITTEN
        )
        found += [f"{one.name} has no {', '.join(lacks)}"] if lacks else []
        if not all(one.takes(case) for case in cases if one.has(case.cell)):
            passes, dtypes = ", ".join(one.passes), ", ".join(one.dtypes)
            found.append(f"{one.name} takes part in {passes} with {dtypes} only")
    return found


def field(device: str, peers: str | None, cases: Sequence[Case]) -> Field:
    """Who takes part.

    Args:
        device: "cpu", "cuda", or "auto" for all that can be used.
        peers: comma list of names, "none", or None for all that are installed.
        cases: what they are asked to do.

    Raises:
        DeviceUnavailableError: if the device cannot be used.
        ValueError: for a peer that is unknown, named twice, or not installed.
    """
    notes = []
    own = [OWN] if device in ("cpu", "auto") else []
    stepwise = any(case.stepwise for case in cases)
    if own:
        own += [one for one in (COMPILED, BUILT_IN) if any(map(one.takes, cases))]
    if device in ("cuda", "auto"):
        cuda = next(found for found in fastrnn.devices() if found.name == "cuda")
        if cuda.available and stepwise:
            notes.append("CUDA: streams run on the CPU so far")
        elif cuda.available:
            own.append(replace(OWN, device="cuda"))
        elif device == "cuda":
            raise DeviceUnavailableError(f"cuda cannot be used here: {cuda.reason}")
        else:
            notes.append(f"CUDA: {cuda.reason}")
    if peers is None:
        able = [found for found in PEERS.values() if any(found.has(case.cell) for case in cases)]
        if not any(case.suite == "cells" for case in cases):
            notes += [f"without {found.name}, which takes minutes" for found in able if found.limit]
            able = [found for found in able if not found.limit]
        present = tuple(found for found in able if not found.missing)
        notes += [
            f"no column for {found.name}: {_absence(found)}" for found in able if found.missing
        ]
        return Field(tuple(own), present, (*notes, *_limits(present, cases)))
    asked = [] if peers == "none" else [peer(text.strip()) for text in peers.split(",")]
    for found in asked:
        if found.missing:
            raise ValueError(f"peer {found.name}: {_absence(found)}")
    names = [OWN.name, COMPILED.name, BUILT_IN.name, *(found.name for found in asked)]
    if len(set(names)) < len(names):
        raise ValueError(f"each name once, and not {OWN.name!r}: got {peers!r}")
    return Field(tuple(own), tuple(asked), (*notes, *_limits(asked, cases)))


def describe(threads: int | None, load: float | None, probes: dict[str, float]) -> dict[str, Any]:
    """The machine as it stands in the JSON; `load` is that before the run."""
    features, vector_bytes = machine.features()
    devices = {device.name: device for device in fastrnn.devices()}
    return {
        "cpu": devices["cpu"].details["model"],
        "cores": available_cpus(),
        "platform": platform.platform(),
        "features": features,
        "vector_bytes": vector_bytes,
        "threads": threads,
        "load": load,
        "stops": CAN_STOP,
        "versions": {"fastrnn": fastrnn.__version__, **machine.versions()},
        "caches": machine.cache_bytes(),
        "probes": probes,
        "devices": {name: device.reason for name, device in devices.items()},
    }


def _progress() -> Progress:
    """A bar on stderr, which goes when the run is over."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def measure(cases: Sequence[Case], contenders: Field, threads: int, timeout: float) -> Results[Row]:
    """Probe the machine, then run all cases, with a progress bar on stderr.

    Raises:
        WorkerError: if the probes do not get there.
    """
    load = machine.load()
    with _progress() as progress:
        task = progress.add_task("probing the machine", total=len(cases))
        probes = probe(threads, cases[0].compute, timeout)
        progress.update(task, description=str(cases[0]))
        following = iter(cases[1:])

        def done(case: Case) -> None:
            progress.update(task, advance=1, description=str(next(following, "")))

        settings = Settings(threads, timeout, probes, machine.cache_bytes())
        rows = run(cases, (*contenders.own, *contenders.peers), settings, done)
        defined = dict.fromkeys(case.cell for case in cases if case.suite == "cells")
        progress.update(task, description="defining cells")
        definitions = [measure_definition(cell) for cell in defined]
    return Results(describe(threads, load, probes), rows, definitions)


def measure_loop(models: Sequence[Model], threads: int | None, timeout: float) -> Results[loop.Row]:
    """Run the models of the suite `loop`, with a progress bar on stderr."""
    load = machine.load()
    with _progress() as progress:
        task = progress.add_task(str(models[0]), total=len(models))
        following = iter(models[1:])

        def done(model: Model) -> None:
            progress.update(task, advance=1, description=str(next(following, "")))

        rows = loop.run(models, threads, timeout, done)
    return Results(describe(threads, load, {}), rows)
