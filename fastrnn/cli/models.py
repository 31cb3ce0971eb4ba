"""The commands that take a saved model: `fastrnn stream`, `export`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from fastrnn.cli import options

#: Of commands that take a model's file.
PREFIX = options.prefix("Of the layer to take from MODEL, where it has more; `fastrnn show` tells.")


def model(path: str, prefix: str = "") -> Any:
    """A model from a file, or click's error for what keeps it from streaming."""
    import fastrnn

    try:
        return fastrnn.weights.single(fastrnn.load(path, prefix=prefix), path)
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from None


_weights = click.option(
    "--weights",
    type=click.Choice(("bf16", "int8")),
    help="Store the weights of a float32 model in less; arithmetic stays float32.",
)


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False))
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT")
@click.option(
    "--block",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Steps to a call.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Steps a second of the signal, where its file does not say (.wav does).",
)
@_weights
@PREFIX
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def stream(
    path: str,
    source: str,
    target: str,
    block: int,
    rate: float | None,
    weights: str | None,
    prefix: str,
    quiet: bool,
) -> None:
    """Run a saved model over a signal, step by step or in blocks.

    MODEL is any file that `fastrnn.load` reads. INPUT and OUTPUT are .npy, .csv or .wav files (PCM,
    or floats of 32 and 64 bits; OUTPUT as INPUT is), or - for the standard input or output, as CSV,
    a step to a line. What the model took for a call is then told on the standard error.
    """
    from fastrnn.tools import follow

    if rate is not None and not math.isfinite(rate):
        raise click.BadParameter(f"{rate} is no number of steps", param_hint="--rate")
    loaded = model(path, prefix)
    try:
        follow.follow(loaded, source, target, block=block, rate=rate, weights=weights, quiet=quiet)
    except BrokenPipeError:  # who read the output has seen enough: click ends without a word
        raise
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the files; made if it is not there.",
)
@click.option(
    "--name",
    default="model",
    show_default=True,
    help="Of the files, and what the functions' names begin with.",
)
@PREFIX
@click.option("--cpu", default="host", show_default=True, help="What the code is for.")
@_weights
def export(path: str, folder: Path, name: str, prefix: str, cpu: str, weights: str | None) -> None:
    """Write a saved model as C: an object file, a header, and libraries.

    They need neither Python nor Numba. MODEL is any file that `fastrnn.load` reads.
    """
    from fastrnn.export import CPUS
    from fastrnn.export import export as write

    if cpu not in CPUS:
        raise click.BadParameter(f"{cpu!r} is none of {', '.join(CPUS)}", param_hint="--cpu")
    try:
        files = write(model(path, prefix), folder, name=name, cpu=cpu, weights=weights)
    except (OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    for file in files:
        click.echo(f"{file} ({file.stat().st_size:,} bytes)")
    if not any(file.suffix in (".so", ".dylib", ".dll") for file in files):
        click.echo("no C compiler for this target was found: there is no shared library", err=True)
