"""The stages of a stream: one step of a layer each.

A stage is a description of sizes. Its `step` makes the function that runs one step, for one
thread or for the members of a team:

    step(sizes, program, memory, x, x_step, turn, member, members, record, phase) -> phase

`sizes` are the stage's own (`Sizes`): constants, where the step is compiled for a stage, or read
when it runs, where it is compiled for all of a kind (`generic.py`). The code is the same, and so
are all sums. `program` is the address of a table in which the addresses of the stage's weights
stand, from word `slot` on; `memory` points to the values of a stream, of which the stage's own
begin at `at`. Rows of the input begin at `x` and are x_step apart. What comes out stands twice,
each B rows of out_step: from `at` that of even turns, then that of odd ones; a step reads the
turn's and writes the other. Members of a team take units each, and meet wherever one reads
what others have written.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types

from fastrnn_kernels.cpu.isa.address import words
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.product.tile import alternate
from fastrnn_kernels.cpu.threads.barrier import meet

FLOATS = {"float32": types.float32, "float64": types.float64}
#: Weights up to which they lie in the nearest cache.
NEAR = 8 << 10


#: Rows of a tile, beside single ones, where the batch is not known: at most.
ROWS_OF_ANY = 4


class Sizes(NamedTuple):
    """What a stage's step has to know of it, all integers."""

    slot: Any  # the first word of the program's table that is about its weights
    at: Any  # where its values begin behind the header
    B: Any
    I: Any
    H: Any
    P: Any  # what is read of an old h: 0 where there is none
    rest_step: Any  # H, padded to whole panels
    out_step: Any  # P, or what comes out, padded to whole panels
    rest_at: Any  # where its parts begin behind the header: `CellStage.layout`
    inner_at: Any
    sums_at: Any


def tiled(B: int | None, vectors: int, near: bool, body: Callable[[int, int], Any]) -> Any:
    """A function `(sizes, program, memory, x, x_step, turn, first, last)` over panels.

    `body(rows, panels)` makes that of one tile, `(sizes, program, memory, x, x_step, turn, q, n)`,
    from row q and panel n on. B: the rows, None where they are not known. Of weights that are near,
    in the first cache, a single row takes two panels together: one has too few sums to keep the
    multipliers busy.
    """
    if B is None:
        return _of_any_rows(vectors, body)
    if B == 1:
        together = 2 if near else 1
        narrow = body(1, 1)
        wide = body(1, together) if near else narrow

        @inlined
        def row(sizes, program, memory, x, x_step, turn, first, last):  # type: ignore[no-untyped-def]
            many = (last - first) // together
            for k in range(many):
                n = first + alternate(turn, k, 0, many) * together
                wide(sizes, program, memory, x, x_step, turn, 0, n)
            for n in range(first + many * together, last):
                narrow(sizes, program, memory, x, x_step, turn, 0, n)

        return row
    tiles = -(-B // current().rows(vectors))
    many = -(-B // tiles)
    rest = B % many
    whole = body(many, 1)
    partial = body(rest, 1) if rest else whole

    @inlined
    def rows(sizes, program, memory, x, x_step, turn, first, last):  # type: ignore[no-untyped-def]
        for k in range(first, last):
            n = alternate(turn, k, first, last)
            for q in range(0, B - rest, many):
                whole(sizes, program, memory, x, x_step, turn, q, n)
            if rest > 0:
                partial(sizes, program, memory, x, x_step, turn, B - rest, n)

    return rows


def _of_any_rows(vectors: int, body: Callable[[int, int], Any]) -> Any:
    """As `tiled`, of as many rows as the sizes tell: tiles of one size, and the last rows singly.

    Tiles of every size would take as many times as long to compile.
    """
    many = min(ROWS_OF_ANY, current().rows(vectors))
    whole, single = body(many, 1), body(1, 1)

    @inlined
    def rows(sizes, program, memory, x, x_step, turn, first, last):  # type: ignore[no-untyped-def]
        tiles = sizes.B // many * many
        for k in range(first, last):
            n = alternate(turn, k, first, last)
            for q in range(0, tiles, many):
                whole(sizes, program, memory, x, x_step, turn, q, n)
            for q in range(tiles, sizes.B):
                single(sizes, program, memory, x, x_step, turn, q, n)

    return rows


def shared(run: Any, panels: Callable[[Any], Any], team: bool) -> Any:
    """A pass over panels, as many as sizes tell, shared among a team's members if it is for one."""

    @inlined
    def alone(  # type: ignore[no-untyped-def]
        sizes, program, memory, x, x_step, turn, member, members, record, phase
    ):
        run(sizes, program, memory, x, x_step, turn, 0, panels(sizes))
        return phase

    @inlined
    def parted(  # type: ignore[no-untyped-def]
        sizes, program, memory, x, x_step, turn, member, members, record, phase
    ):
        many = panels(sizes)
        first, last = many * member // members, many * (member + 1) // members
        run(sizes, program, memory, x, x_step, turn, first, last)
        return meet(words(record), members, phase)

    return parted if team else alone


def one_after_another(steps: list[Any]) -> Any:
    """Some passes as one."""
    first, *others = steps
    if not others:
        return first
    then = one_after_another(others)

    @inlined
    def both(  # type: ignore[no-untyped-def]
        sizes, program, memory, x, x_step, turn, member, members, record, phase
    ):
        phase = first(sizes, program, memory, x, x_step, turn, member, members, record, phase)
        return then(sizes, program, memory, x, x_step, turn, member, members, record, phase)

    return both
