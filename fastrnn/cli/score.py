"""`fastrnn score`: a saved model over large sets of sequences."""

from __future__ import annotations

import click

from fastrnn.cli.models import PREFIX, model


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, dir_okay=False))
@click.argument("data", metavar="DATA", type=click.Path(exists=True))
@click.option("-o", "--output", required=True, help="A .npy or .parquet file.")
@click.option("--column", help="Of a .parquet file, the one with the sequences.")
@click.option(
    "--which",
    type=click.Choice(("all", "last")),
    default="all",
    show_default=True,
    help="Outputs of each sequence to keep.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Sequences that are run together.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@PREFIX
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def score(
    path: str,
    data: str,
    output: str,
    column: str | None,
    which: str,
    batch_size: int,
    overwrite: bool,
    prefix: str,
    quiet: bool,
) -> None:
    """Run a saved model over a set of sequences.

    MODEL is any file that `fastrnn.load` reads. DATA is a .npy file (N, T, I) or (N, T), a .parquet
    file with a column of lists, or a folder of .wav files. Memory stays bounded, all cores work,
    and a run that was stopped goes on where it was when the same command is given again.
    """
    from fastrnn.score import score as run

    loaded = model(path, prefix)
    try:
        many = run(
            loaded, data, output, column=column, which=which, batch_size=batch_size,
            overwrite=overwrite, progress=not quiet,
        )  # fmt: skip
    except FileExistsError:
        raise click.ClickException(f"{output} is there already: --overwrite replaces it") from None
    except (ValueError, TypeError, ImportError) as error:
        raise click.ClickException(str(error)) from None
    if not quiet:
        click.echo(f"{many:,} sequences in {output}", err=True)
