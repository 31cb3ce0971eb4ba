"""`fastrnn tune`."""

from __future__ import annotations

import click

from fastrnn.cli import options
from fastrnn_kernels.cells import registry


@click.command()
@options.cells()
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    help="Hidden units, of as many inputs; may be repeated.  [default: 64 to 1024]",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    help="Rows; may be repeated.  [default: 1, 16, 64]",
)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(("float32", "float64", "tf32", "bfloat16", "float16")),
    multiple=True,
    default=("float32",),
    show_default=True,
    help="May be repeated; tf32 is float32 where fastrnn.allow_tf32 is on.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def tune(
    cells: tuple[str, ...],
    sizes: tuple[int, ...],
    batches: tuple[int, ...],
    dtypes: tuple[str, ...],
    quiet: bool,
) -> None:
    """Measure on this GPU which path is faster for which shapes, and when the CPU is.

    What is found is kept for this GPU in the user's cache folder, and read by layers with
    device="cuda" and "auto". Exit code 2 where there is no GPU to use.
    """
    from rich.console import Console
    from rich.progress import Progress

    import fastrnn
    from fastrnn.tools import tune as tuning

    cuda = next(found for found in fastrnn.devices() if found.name == "cuda")
    if not cuda.available:
        raise click.UsageError(f"cuda cannot be used here: {cuda.reason}")
    chosen_cells = cells or tuple(registry.CELLS)
    try:
        chosen = tuning.points(
            chosen_cells, dtypes, sizes or tuning.SIZES, batches or tuning.BATCHES
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    console = Console(stderr=True)
    kept = True
    with Progress(console=console, disable=quiet, transient=True) as progress:
        task = progress.add_task("shapes", total=len(chosen))
        for found in tuning.tune(chosen):
            kept &= found.kept
            progress.advance(task)
            if not quiet:
                click.echo("\n".join(tuning.described(found)))
    if not kept:
        raise click.ClickException(
            "what was measured could not be kept: no cache folder that can be written; set "
            "FASTRNN_CACHE_DIR to one"
        )
