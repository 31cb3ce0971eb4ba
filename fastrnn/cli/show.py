"""`fastrnn show`: what a file holds, and by which prefix each part is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastrnn.cli import options

if TYPE_CHECKING:
    from fastrnn.weights.contents import Part


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@options.prefix("Only what begins so.")
@click.option("--from", "origin", metavar="FORMAT", help="Of FILE, if its name does not say.")
def show(path: str, prefix: str, origin: str | None) -> None:
    """Show what a file holds: layers, sizes, states, and what is left over.

    FILE is any that `fastrnn.load` reads. A layer is loaded by its prefix: with --prefix in other
    commands, and `fastrnn.load(FILE, prefix=...)`.
    """
    from rich.console import Console

    from fastrnn import weights

    if origin is not None and origin not in weights.FORMATS:
        wanted = ", ".join(weights.FORMATS)
        raise click.BadParameter(f"{origin!r} is none of {wanted}", param_hint="--from")
    try:
        kind, parts = weights.contents(path, of=origin)
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from None
    prefix = prefix.rstrip("./")
    chosen = [part for part in parts if _is_under(part.prefix, prefix)]
    if not chosen:
        raise click.ClickException(f"{path} has nothing under {prefix!r}")
    console = Console(highlight=False)
    console.print(f"{path}: {kind}", markup=False)
    good, rest = [p for p in chosen if p.loads], [p for p in chosen if not p.loads]
    if good:
        _layers(console, good)
    if rest:
        _left_over(console, rest)


def _is_under(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith((f"{prefix}.", f"{prefix}/"))


def _layers(console: Any, parts: list[Part]) -> None:
    from rich.text import Text

    from fastrnn.weights.contents import brief, states

    table = _table(("prefix", "layer", "states", "parameters"))
    for part in parts:
        many = sum(value.size for value in part.model.parameters.values())
        table.add_row(
            Text(part.prefix or "-"), Text(brief(part.model)), Text(states(part.model) or "-"),
            f"{many:,}",
        )  # fmt: skip
    console.print(table)


def _left_over(console: Any, parts: list[Part]) -> None:
    from rich.text import Text

    from fastrnn.weights.contents import arrays_told

    table = _table(("left over", "arrays", "why"))
    for part in parts:
        told = arrays_told(part.shapes, 3) or "-"
        table.add_row(Text(part.prefix or "-"), Text(told), Text(part.reason))
    console.print(table)


def _table(names: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table
