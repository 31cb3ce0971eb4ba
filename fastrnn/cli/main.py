"""The command line: `fastrnn bench`, `export`, `info`, `score`, `show`, `stream`, `tune`...

Commands import what they need when they run, so that help and errors do not wait for it.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import click

from fastrnn.bench.cases import DTYPES
from fastrnn.cli import options
from fastrnn.cli.bench import bench
from fastrnn.cli.models import export, model, stream
from fastrnn.cli.score import score
from fastrnn.cli.show import show
from fastrnn.cli.tune import tune
from fastrnn.tools import convert


def _version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from fastrnn import __version__

        click.echo(f"fastrnn {__version__}")
        context.exit()


class _Commands(click.Group):
    """Commands that tell what the system refuses, such as a full disk, in a line."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # who read the output has seen enough: click ends without a word
            raise
        except OSError as error:
            sys.stdout = None  # what is left to write would fail again
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Fused recurrent kernels: RNN, LSTM, GRU, forward and backward."""


@main.command()
def info() -> None:
    """Show what this machine has and what fastrnn uses of it."""
    from rich.console import Console
    from rich.table import Table

    import fastrnn
    from fastrnn.bench import machine
    from fastrnn_kernels.cache import precompiled
    from fastrnn_kernels.cache.disk import cache_folder

    features, _ = machine.features()
    caches = ", ".join(f"{level} {size >> 10} KiB" for level, size in machine.cache_bytes().items())
    lines = {
        "fastrnn": fastrnn.__version__,
        **machine.versions(),
        "platform": platform.platform(),
        "kernel cache": str(cache_folder() or "none: this user has no home folder"),
        "kernels that came along": precompiled.words(),
    }
    for device in fastrnn.devices():
        name = device.name.upper()
        lines[name] = "can be used" if device.available else device.reason
        lines |= {f"{name} {detail}": text for detail, text in device.details.items()}
    lines |= {"caches": caches, "all features": " ".join(features)}
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text)
    Console().print(table, highlight=False)


@main.command()
@options.cells()
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(DTYPES),
    multiple=True,
    default=("float32",),
    show_default=True,
    help="May be repeated.",
)
@click.option("--inference", is_flag=True, help="Leave the backward passes out.")
@click.option("--exact", is_flag=True, help="For this very CPU, also what came with fastrnn.")
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False))
def warmup(
    cells: tuple[str, ...],
    dtypes: tuple[str, ...],
    inference: bool,
    exact: bool,
    models: tuple[str, ...],
) -> None:
    """Compile kernels ahead of their first use, and keep them on disk.

    Takes some seconds for each cell, and next to nothing the second time, or where they came with
    fastrnn (see `fastrnn info`). With MODELS, saved ones, their streams of one row are compiled,
    and nothing else.
    """
    import logging
    from time import perf_counter

    from numba.core import event

    import fastrnn
    from fastrnn_kernels.cache import precompiled
    from fastrnn_kernels.cache.disk import cache_folder

    logging.getLogger("fastrnn").setLevel(logging.ERROR)  # what is compiled is said here
    start = perf_counter()

    def done(cell: str, dtype: str) -> None:
        nonlocal start
        click.echo(f"{cell} {dtype}: {perf_counter() - start:.1f} s")
        start = perf_counter()

    if models and (cells or inference or dtypes != ("float32",)):
        raise click.UsageError("--cell, --dtype and --inference are for cells, not for MODELS")
    if exact:
        precompiled.leave_out()
    with event.install_recorder("numba:compile") as recorder:
        if models:
            for path in models:
                try:
                    model(path).stream().warmup()
                except ValueError as error:
                    raise click.ClickException(f"{path}: {error}") from None
                done(path, "stream")
        else:
            fastrnn.warmup(cells or None, dtypes, training=not inference, done=done)
    folder = cache_folder()
    if folder is None or not os.access(folder, os.W_OK):
        if precompiled.present() and not recorder.buffer:
            click.echo("nothing was left to compile")
            return
        raise click.ClickException(
            f"kernels could not be kept: no cache folder that can be written ({folder}); "
            "set FASTRNN_CACHE_DIR to one"
        )
    click.echo(f"kept in {folder}")


for _command in (bench, convert.command, stream, export, score, show, tune):
    main.add_command(_command)
