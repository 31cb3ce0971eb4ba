"""`fastrnn bench`: fastrnn beside its peers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrnn.bench.cases import DTYPES, PASSES, SUITES, Shape, cases_of
from fastrnn.bench.loop.models import NAME as LOOP
from fastrnn.bench.loop.models import Model, models_of
from fastrnn.cli import options

if TYPE_CHECKING:
    from fastrnn.bench.results import Results


def _shapes(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[Shape, ...]:
    try:
        return tuple(map(Shape.parse, texts))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option(
    "--suite",
    type=click.Choice([*SUITES, LOOP]),
    default="quick",
    show_default=True,
    help="Which shapes, and what a call is; loop takes whole steps of ordinary models in PyTorch "
    "and Keras, with their own layers and with fastrnn's; cells has those of fastrnn.cells.",
)
@options.cells()
@click.option(
    "--shape",
    "shapes",
    metavar="T,B,I,H",
    callback=_shapes,
    multiple=True,
    help="Instead of the suite's shapes; may be repeated.",
)
@click.option(
    "--pass",
    "passes",
    type=click.Choice(PASSES),
    multiple=True,
    help="Instead of the suite's passes; train is forward and backward.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float32",
    show_default=True,
    help="bfloat16 and int8 (streams only) are for inference: peers compute in bfloat16 where "
    "they have it, else in float32.",
)
@click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="Where fastrnn runs; auto takes all there is.",
)
@click.option(
    "--peers",
    metavar="NAMES",
    help="Comma list of torch, torch.compile, onnxruntime, numpy, or name=module for your own; or "
    "none. [default: all that are installed]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Of each contender. [default: all CPUs; of suite loop, what each takes by itself]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=300.0,
    show_default=True,
    help="Seconds after which a contender's answer is no longer waited for.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the machine and all rows here too.",
)
def bench(
    suite: str,
    cells: tuple[str, ...],
    shapes: tuple[Shape, ...],
    passes: tuple[str, ...],
    dtype: str,
    device: str,
    peers: str | None,
    threads: int | None,
    timeout: float,
    json_file: Path | None,
) -> None:
    """Measure fastrnn beside its peers, after comparing their answers.

    Exit code 1 if a contender's numbers are wrong or it gives none, 2 if the options cannot be
    met.
    """
    if math.isnan(timeout):
        raise click.BadParameter("nan is no number of seconds", param_hint="--timeout")
    try:
        if suite == LOOP:
            models = models_of(cells)
        else:
            cases_of(suite, cells, shapes, passes, dtype)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if json_file is not None and not os.access(json_file.parent, os.W_OK):
        raise click.BadParameter(f"cannot write to {json_file.parent}", param_hint="--json")

    from rich.console import Console

    import fastrnn
    from fastrnn.bench import command, report
    from fastrnn.bench.process import WorkerError
    from fastrnn_kernels.cpu.device import available_cpus

    if threads is not None and threads > available_cpus():
        raise click.BadParameter(
            f"{threads} is more than the {available_cpus()} CPUs there are", param_hint="--threads"
        )
    if suite == LOOP:
        fixed = {
            "--shape": shapes, "--pass": passes, "--peers": peers,
            "--dtype": dtype != "float32", "--device": device == "cuda",
        }  # fmt: skip
        _bench_loop(
            models, [name for name, given in fixed.items() if given], threads, timeout, json_file
        )
        return
    threads = threads or fastrnn.get_num_threads()
    chosen = cases_of(suite, cells, shapes, passes, dtype, threads)
    try:
        contenders = command.field(device, peers, chosen)
    except command.DeviceUnavailableError as error:
        raise click.UsageError(str(error)) from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--peers") from None
    try:
        results = command.measure(chosen, contenders, threads, timeout)
    except WorkerError as error:
        raise click.ClickException(f"the machine could not be probed: {error}") from None
    report.show(results, contenders.peers, contenders.notes, Console())
    _end(results, json_file)


def _bench_loop(
    models: Sequence[Model],
    refused: Sequence[str],
    threads: int | None,
    timeout: float,
    json_file: Path | None,
) -> None:
    """`fastrnn bench --suite loop`; refused: options that it does not take."""
    from rich.console import Console

    from fastrnn.bench import command
    from fastrnn.bench.loop import report

    if refused:
        raise click.UsageError(
            f"suite {LOOP} has models of its own, in float32 on the CPU, beside the layers of "
            f"their frameworks: it takes no {' and no '.join(refused)}"
        )
    present = [model for model in models if not model.missing]
    lacking = dict.fromkeys(name for model in models for name in model.missing)
    notes = [f"without {name}, models that need it are left out" for name in lacking]
    if not present:
        raise click.ClickException(
            f"suite {LOOP} needs {' and '.join(lacking)}: pip install {' '.join(lacking)}"
        )
    results = command.measure_loop(present, threads, timeout)
    report.show(results, notes, Console())
    _end(results, json_file)


def _end(results: Results[Any], json_file: Path | None) -> None:
    """Write the JSON that was asked for; exit code 1 if a contender's numbers were wrong."""
    if json_file is not None:
        json_file.write_text(json.dumps(results.as_json(), indent=2) + "\n")
    if not results.good:
        raise click.exceptions.Exit(1)
