"""A few rows of a batch times a packed panel, for any number of rows.

T time steps, B batch, I input size, H hidden size, P width of h (H, or the projection's),
G gates, S sums (G and one more for each gate that stands apart), K saved values, U units
to a panel. A panel of the forward pass holds, for U units, the columns of all gates:
[k][gate][U]; so the sums of a unit's gates are computed together, and the gates applied
while they are in the nearest cache. Other panels hold VECTORS vectors of columns.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from fastrnn_kernels.cache.disk import named
from fastrnn_kernels.cpu.isa.host import current, for_each, suffix
from fastrnn_kernels.cpu.isa.inlined import NO_WRAPPERS, inlined
from fastrnn_kernels.cpu.isa.instruction_set import MAX_ROWS
from fastrnn_kernels.cpu.isa.llvm import lanes, pointer
from fastrnn_kernels.cpu.product.block import register_block
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.tiles import tile_block

#: Numbers for products: Numba compiles a function anew for each constant it is given.
ZERO: Any = np.int64(0)
ONE: Any = np.int64(1)


@inlined
def copy(target: Any, target_at: int, source: Any, source_at: int, count: int) -> None:
    """Copy `count` values between two rows of memory, as one vector loop."""
    to = target[target_at : target_at + count]
    origin = source[source_at : source_at + count]
    for u in range(count):
        to[u] = origin[u]


@inlined
def add(target: Any, target_at: int, source: Any, source_at: int, count: int) -> None:
    """Add `count` values of one row of memory to those of another, as one vector loop."""
    to = target[target_at : target_at + count]
    origin = source[source_at : source_at + count]
    for u in range(count):
        to[u] += origin[u]


@inlined
def copy_masked(
    target: Any, target_at: int, source: Any, source_at: int, mask: Any, mask_at: int, count: int
) -> None:
    """Copy `count` values times those of a mask."""
    to = target[target_at : target_at + count]
    origin, factors = source[source_at : source_at + count], mask[mask_at : mask_at + count]
    for u in range(count):
        to[u] = origin[u] * factors[u]


@inlined
def time_of(length: int, step: int, reverse: bool) -> int:
    """The time of a sequence's step: the reverse direction begins at its own end."""
    return length - 1 - step if reverse else step


@inlined
def alternate(turn: int, position: int, first: int, last: int) -> int:
    """The position from the front in even turns and from the back in odd ones.

    The panels that one step reads last are the first of the next: they are still in the
    nearest cache, which reading all in the same order each time would have emptied of them.
    """
    return position if turn % 2 == 0 else first + last - 1 - position


@inlined
def next_rows(left: int, largest: int) -> int:
    """Rows of the next tile, so that the last two are of like size."""
    if left <= largest:
        return left
    if largest > MAX_ROWS:  # of the matrix unit: what is not full takes as long
        return largest
    if left >= 2 * largest:
        return largest
    return (left + 1) // 2


@for_each
def multiply_rows(vectors: int, values: int) -> Callable[..., Any]:
    """As `multiply`, of `values` to an element, by the unit that does it fastest.

    The function takes the unit first: what `use_tiles` gave, or 0.
    """
    if not (current().tiles and values == 2):
        by_registers = multiply(vectors)
        return inlined(lambda unit, *arguments: by_registers(*arguments))  # type: ignore[no-any-return]
    block = tile_block(vectors)

    def tiles(  # type: ignore[no-untyped-def]
        unit, rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        block(unit, rows, out, out_at, out_step, init, init_at, init_step,
              a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip

    chosen = njit(**NO_WRAPPERS)(named(tiles, f"{vectors} vectors in tiles{suffix()}"))

    @inlined
    def product(  # type: ignore[no-untyped-def]
        unit, rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        chosen(unit, rows, pointer(out), out_at, out_step, pointer(init), init_at, init_step,
               pointer(a), pointer(rows_at), rows_first, a_step,
               pointer(panel), panel_at, panel_step, count)  # fmt: skip

    return product  # type: ignore[no-any-return]


@for_each
def multiply(vectors: int) -> Callable[..., Any]:
    """A function `(rows, *arguments of a register block)` that runs the one of so many rows."""
    one, two, three, four, five, six = (
        register_block(rows, vectors) for rows in range(1, MAX_ROWS + 1)
    )
    largest = current().rows(vectors)

    def choose(  # type: ignore[no-untyped-def]
        rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        if largest >= 6 and rows == 6:
            six(out, out_at, out_step, init, init_at, init_step,
                a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip
        elif largest >= 5 and rows == 5:
            five(out, out_at, out_step, init, init_at, init_step,
                 a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip
        elif largest >= 4 and rows == 4:
            four(out, out_at, out_step, init, init_at, init_step,
                 a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip
        elif largest >= 3 and rows == 3:
            three(out, out_at, out_step, init, init_at, init_step,
                  a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip
        elif largest >= 2 and rows == 2:
            two(out, out_at, out_step, init, init_at, init_step,
                a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip
        else:
            one(out, out_at, out_step, init, init_at, init_step,
                a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip

    chosen = njit(**NO_WRAPPERS)(named(choose, f"{vectors} vectors{suffix()}"))

    @inlined
    def product(  # type: ignore[no-untyped-def]
        rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        chosen(rows, pointer(out), out_at, out_step, pointer(init), init_at, init_step,
               pointer(a), pointer(rows_at), rows_first, a_step,
               pointer(panel), panel_at, panel_step, count)  # fmt: skip

    return product  # type: ignore[no-any-return]


@for_each
def multiply_columns() -> Callable[..., Any]:
    """As `multiply` of VECTORS vectors, but only of those that have columns in them.

    The function takes the number of columns that are left, first. A panel that is not full is done
    vector by vector: three of them take three quarters of the time of four (measured).
    """
    wide, narrow = multiply(VECTORS), multiply(1)

    @inlined
    def product(  # type: ignore[no-untyped-def]
        columns, rows, out, out_at, out_step, init, init_at, init_step,
        a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        W = lanes(out)
        if columns > W * (VECTORS - 1):
            wide(rows, out, out_at, out_step, init, init_at, init_step,
                 a, rows_at, rows_first, a_step, panel, panel_at, panel_step, count)  # fmt: skip
        else:
            at = ZERO
            while at < columns:
                narrow(rows, out, out_at + at, out_step, init, init_at + at, init_step,
                       a, rows_at, rows_first, a_step,
                       panel, panel_at + at, panel_step, count)  # fmt: skip
                at += W

    return product  # type: ignore[no-any-return]
