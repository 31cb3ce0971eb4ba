"""The products over all time steps: gradients of x, of the weights and of the biases.

Rows are taken by index, so that padding costs nothing and is never read; `many` (1,) tells how
many of them there are, which who prepares a job may not know. A sum over rows is made of chains of
DEPTH of them, and adds these in one order, whatever the number of threads: as the loop over time
comes to them, from the last to the first if `descending`. So parts of the time, one after another,
make the sums of the whole (`checkpoints.py`). All are jobs, whose calls take a part of the results'
rows.
"""

import math
from typing import Any

from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.instruction_set import MAX_ROWS
from fastrnn_kernels.cpu.isa.llvm import flat, lanes
from fastrnn_kernels.cpu.product.block import CHUNK
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.tile import (
    ONE,
    ZERO,
    add,
    copy,
    multiply_columns,
    next_rows,
)
from fastrnn_kernels.cpu.threads.job import COUNT, job

#: Rows taken at a time, and columns of d_sums: what is copied of them stays in the second
#: cache, each copied row a cache line longer, so that they do not fall on the same sets.
DEPTH, SPAN, PADDING = CHUNK, 512, 16
#: Values of a row up to which consecutive rows are read where they lie: wider ones are on too many
#: pages for that, and are copied.
NARROW = 128
#: Rows whose positions the gradient of x prepares at a time.
INPUT_ROWS = MAX_ROWS * 16
#: What is done in parts begins them at multiples of this, and computes what the whole does.
ALIGN = math.lcm(DEPTH, INPUT_ROWS)


def weight_scratch(columns: int, lanes: int) -> int:
    """Values of scratch that a call of `weight_gradient` takes, whole cache lines."""
    width = VECTORS * lanes
    return DEPTH * (SPAN + PADDING) + DEPTH * ((columns + width - 1) // width * width)


_weight_scratch = inlined(weight_scratch)


@job("weight_gradient", "the gradients of weights")
def weight_gradient(arguments):  # type: ignore[no-untyped-def]
    """out[m, n] += Σ_k d_sums[rows[k], d_at + m] b[rows[k], n] for the rows m of this call.

    d_sums (., d_width), b (., b_width); out (M, columns padded to whole vectors), zeros at
    first; scratch of a call: a_rows (DEPTH, SPAN + PADDING), b_panels (panels, DEPTH, 4 vectors).
    """

    product, largest = multiply_columns(), current().rows(VECTORS)

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (
            d_sums_given, d_at, d_width, b_given, b_width, columns, descending, rows, many, M, each,
            out, scratch,
        ) = arguments(record)  # fmt: skip
        d_sums, b, count = flat(d_sums_given), flat(b_given), many[0]
        first, last = number * each, min(number * each + each, M)
        W4 = lanes(b) * VECTORS
        panels = (columns + W4 - 1) // W4
        a_rows = scratch[number * _weight_scratch(columns, lanes(b)) :]
        b_panels = a_rows[DEPTH * (SPAN + PADDING) :]
        chains = (count + DEPTH - 1) // DEPTH
        for turn in range(chains):
            start = (chains - 1 - turn if descending else turn) * DEPTH
            depth = min(DEPTH, count - start)
            whole = rows[start + depth - 1] - rows[start] == depth - 1
            # The last vector of a row reads what is behind it, for columns that nobody reads.
            behind = rows[start + depth - 1] * b_width + panels * W4
            direct = whole and b_width <= NARROW and behind <= b.size
            panel, panel_step, panel_at, panel_width = b_panels, W4, ZERO, DEPTH * W4
            if direct:
                panel, panel_step, panel_at, panel_width = b, b_width, rows[start] * b_width, W4
            else:
                for n in range(panels):
                    here = min(W4, columns - n * W4)
                    for k in range(depth):
                        at = (n * DEPTH + k) * W4
                        copy(b_panels, at, b, rows[start + k] * b_width + n * W4, here)
                        for u in range(here, W4):
                            b_panels[at + u] = 0
            for left in range(first, last, SPAN):
                span = min(SPAN, last - left)
                factors, step, at_first = a_rows, SPAN + PADDING, ZERO
                if whole and d_width <= NARROW:
                    factors, step, at_first = d_sums, d_width, rows[start] * d_width + d_at + left
                else:
                    for k in range(depth):
                        at = rows[start + k] * d_width + d_at + left
                        copy(a_rows, k * step, d_sums, at, span)
                for n in range(panels):
                    left_over, m = columns - n * W4, ZERO
                    while m < span:
                        tile = next_rows(span - m, largest)
                        at = ((left + m) * panels + n) * W4
                        product(
                            left_over, tile, out, at, panels * W4, out, at, panels * W4,
                            factors, at_first + m, ZERO, step,
                            panel, panel_at + n * panel_width, panel_step, depth,
                        )  # fmt: skip
                        m += tile

    return run


@job("input_gradient", "the gradients of inputs")
def input_gradient(arguments):  # type: ignore[no-untyped-def]
    """out[rows[k]] = d_sums[rows[k], :depth] W for the k of this call, or += if `adding`.

    d_sums (., width); w_panels (panels, depth, 4 vectors); out (., columns); scratch of a call:
    tile (MAX_ROWS + 1, 4 vectors), and of indices a_at (INPUT_ROWS,)
    """

    product, largest = multiply_columns(), current().rows(VECTORS)

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (
            d_sums_given, width, depth, w_panels, rows, many, out_given, columns, adding,
            scratch, indices,
        ) = arguments(record)  # fmt: skip
        d_sums, out, parts = flat(d_sums_given), flat(out_given), record[COUNT]
        each = (many[0] + parts * MAX_ROWS - 1) // (parts * MAX_ROWS) * MAX_ROWS
        first, last = number * each, min(number * each + each, many[0])
        W4 = lanes(out) * VECTORS
        tile = scratch[number * (MAX_ROWS + 1) * W4 :]
        a_at = indices[number * INPUT_ROWS :]
        panels = (columns + W4 - 1) // W4
        zeros = MAX_ROWS * W4
        for u in range(W4):
            tile[zeros + u] = 0
        start = first
        while start < last:
            together = min(INPUT_ROWS, last - start)
            for k in range(together):
                a_at[k] = rows[start + k] * width
            for n in range(panels):
                here = min(W4, columns - n * W4)
                q = ZERO
                while q < together:
                    m = next_rows(together - q, largest)
                    row = rows[start + q]
                    whole = here == W4 and rows[start + q + m - 1] - row == m - 1
                    if whole and not adding:
                        product(
                            here, m, out, row * columns + n * W4, columns, tile, zeros, ZERO,
                            d_sums, a_at, q, ONE, w_panels, n * depth * W4, W4, depth,
                        )  # fmt: skip
                    else:
                        product(
                            here, m, tile, ZERO, W4, tile, zeros, ZERO,
                            d_sums, a_at, q, ONE, w_panels, n * depth * W4, W4, depth,
                        )  # fmt: skip
                        for r in range(m):
                            to = rows[start + q + r] * columns + n * W4
                            if adding:
                                add(out, to, tile, r * W4, here)
                            else:
                                copy(out, to, tile, r * W4, here)
                    q += m
            start += together

    return run


@job("bias_gradient", "the gradients of biases")
def bias_gradient(arguments):  # type: ignore[no-untyped-def]
    """out[m] += Σ_k d_sums[rows[k], m]; out (width,), zeros at first; scratch part (width,)."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (d_sums_given, width, descending, rows, many, out, part) = arguments(record)  # fmt: skip
        d_sums, count = flat(d_sums_given), many[0]
        chains = (count + DEPTH - 1) // DEPTH
        for turn in range(chains):
            start = (chains - 1 - turn if descending else turn) * DEPTH
            for m in range(width):
                part[m] = 0
            for k in range(start, min(start + DEPTH, count)):
                row: Any = d_sums[rows[k] * width : rows[k] * width + width]
                for m in range(width):
                    part[m] += row[m]
            for m in range(width):
                out[m] += part[m]

    return run
