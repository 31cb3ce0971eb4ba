"""The stages of a stream: one step of a layer each, for sizes that are known when it is made.

A stage is a description of sizes. Its `step` makes the function that runs one step, for one
thread or for the members of a team:

    step(program, memory, x, x_step, turn, member, members, record, phase) -> phase

`program` is the address of a table in which the addresses of the stage's weights stand, from
word `slot` on; `memory` points to the values of a stream, of which the stage's own begin at
`at`. Rows of the input begin at `x` and are x_step apart. What comes out stands twice, each
B rows of out_step: from `at` that of even turns, then that of odd ones; a step reads the
turn's and writes the other. Members of a team take units each, and meet wherever one reads
what others have written.
"""

from collections.abc import Callable
from typing import Any

from numba import types

from fastrnn_kernels.cpu.isa.address import words
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.product.tile import alternate
from fastrnn_kernels.cpu.threads.barrier import meet

FLOATS = {"float32": types.float32, "float64": types.float64}
#: Weights up to which they lie in the nearest cache.
NEAR = 8 << 10


def tiled(B: int, vectors: int, near: bool, body: Callable[[int, int], Any]) -> Any:
    """A function `(program, memory, x, x_step, turn, first, last)` over panels first to last.

    `body(rows, panels)` makes that of one tile, `(program, memory, x, x_step, turn, q, n)`, from
    row q and panel n on. Of weights that are near, in the first cache, a single row takes two
    panels together: one has too few sums to keep the multipliers busy.
    """
    if B == 1:
        together = 2 if near else 1
        narrow = body(1, 1)
        wide = body(1, together) if near else narrow

        @inlined
        def row(program, memory, x, x_step, turn, first, last):  # type: ignore[no-untyped-def]
            many = (last - first) // together
            for k in range(many):
                n = first + alternate(turn, k, 0, many) * together
                wide(program, memory, x, x_step, turn, 0, n)
            for n in range(first + many * together, last):
                narrow(program, memory, x, x_step, turn, 0, n)

        return row
    tiles = -(-B // current().rows(vectors))
    many = -(-B // tiles)
    rest = B % many
    whole = body(many, 1)
    partial = body(rest, 1) if rest else whole

    @inlined
    def rows(program, memory, x, x_step, turn, first, last):  # type: ignore[no-untyped-def]
        for k in range(first, last):
            n = alternate(turn, k, first, last)
            for q in range(0, B - rest, many):
                whole(program, memory, x, x_step, turn, q, n)
            if rest > 0:
                partial(program, memory, x, x_step, turn, B - rest, n)

    return rows


def shared(run: Any, panels: int, team: bool) -> Any:
    """A pass over panels, shared among the members of a team, if it is for one."""

    @inlined
    def alone(program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        run(program, memory, x, x_step, turn, 0, panels)
        return phase

    @inlined
    def parted(program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        first, last = panels * member // members, panels * (member + 1) // members
        run(program, memory, x, x_step, turn, first, last)
        return meet(words(record), members, phase)

    return parted if team else alone


def one_after_another(steps: list[Any]) -> Any:
    """Some passes as one."""
    first, *others = steps
    if not others:
        return first
    then = one_after_another(others)

    @inlined
    def both(program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        phase = first(program, memory, x, x_step, turn, member, members, record, phase)
        return then(program, memory, x, x_step, turn, member, members, record, phase)

    return both
