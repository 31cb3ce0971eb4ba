"""The products over all time steps: gradients of x, of the weights and of the biases.

Rows are taken by index, so that padding costs nothing and is never read. Every sum runs
over the rows in their order, whatever the number of threads.
"""

from typing import Any

from fastrnn_kernels.cache import kernel
from fastrnn_kernels.cpu.simd import CHUNK, lanes
from fastrnn_kernels.cpu.tile import MAX_ROWS, VECTORS, copy, multiply, next_rows, rows_for

_product = multiply(VECTORS)
_LARGEST = rows_for(VECTORS)
#: Rows taken at a time, and columns of d_sums: what is copied of them stays in the second
#: cache, each copied row a cache line longer, so that they do not fall on the same sets.
DEPTH, SPAN, PADDING = CHUNK, 512, 16


@kernel("weight_gradient")
def weight_gradient(  # type: ignore[no-untyped-def]
    d_sums, d_at, d_width, b, b_width, columns, rows, first, last, out, a_rows, b_panels, tile_at,
):  # fmt: skip
    """out[m, n] += Σ_k d_sums[rows[k], d_at + m] b[rows[k], n] for m from first to last.

    d_sums (., d_width), b (., b_width); out (M, columns padded to whole vectors), zeros at
    first; scratch a_rows (DEPTH, SPAN + PADDING), b_panels (N, DEPTH, 4 vectors), tile_at
    (MAX_ROWS,).
    """
    W4 = lanes(b) * VECTORS
    panels = (columns + W4 - 1) // W4
    start = 0
    while start < rows.size:
        depth = min(DEPTH, rows.size - start)
        for n in range(panels):
            here = min(W4, columns - n * W4)
            for k in range(depth):
                at = (n * DEPTH + k) * W4
                copy(b_panels, at, b, rows[start + k] * b_width + n * W4, here)
                for u in range(here, W4):
                    b_panels[at + u] = 0
        for left in range(first, last, SPAN):
            span = min(SPAN, last - left)
            step = SPAN + PADDING
            for k in range(depth):
                copy(a_rows, k * step, d_sums, rows[start + k] * d_width + d_at + left, span)
            for n in range(panels):
                m = 0
                while m < span:
                    tile = next_rows(span - m, _LARGEST)
                    for r in range(tile):
                        tile_at[r] = m + r
                    at = ((left + m) * panels + n) * W4
                    _product(
                        tile, out, at, panels * W4, out, at, panels * W4,
                        a_rows, tile_at, 0, step, b_panels, n * DEPTH * W4, W4, depth,
                    )  # fmt: skip
                    m += tile
        start += depth


@kernel("input_gradient")
def input_gradient(  # type: ignore[no-untyped-def]
    d_sums, width, depth, panels, rows, first, last, out, columns, tile, a_at,
):  # fmt: skip
    """out[rows[k]] = d_sums[rows[k], :depth] W for k from first to last.

    d_sums (., width); panels (N, depth, 4 vectors) of W; out (., columns);
    scratch tile (MAX_ROWS + 1, 4 vectors), a_at (MAX_ROWS * 16,)
    """
    W4 = lanes(out) * VECTORS
    blocks = (columns + W4 - 1) // W4
    zeros = MAX_ROWS * W4
    for u in range(W4):
        tile[zeros + u] = 0
    start = first
    while start < last:
        many = min(a_at.size, last - start)
        for k in range(many):
            a_at[k] = rows[start + k] * width
        for n in range(blocks):
            here = min(W4, columns - n * W4)
            q = 0
            while q < many:
                m = next_rows(many - q, _LARGEST)
                row = rows[start + q]
                if here == W4 and rows[start + q + m - 1] - row == m - 1:
                    _product(
                        m, out, row * columns + n * W4, columns, tile, zeros, 0,
                        d_sums, a_at, q, 1, panels, n * depth * W4, W4, depth,
                    )  # fmt: skip
                else:
                    _product(
                        m, tile, 0, W4, tile, zeros, 0,
                        d_sums, a_at, q, 1, panels, n * depth * W4, W4, depth,
                    )  # fmt: skip
                    for r in range(m):
                        copy(out, rows[start + q + r] * columns + n * W4, tile, r * W4, here)
                q += m
        start += many


@kernel("bias_gradient")
def bias_gradient(d_sums, width, rows, out, part):  # type: ignore[no-untyped-def]
    """out[m] += Σ_k d_sums[rows[k], m]; out (width,), zeros at first; scratch part (width,)."""
    for start in range(0, rows.size, DEPTH):
        for m in range(width):
            part[m] = 0
        for k in range(start, min(start + DEPTH, rows.size)):
            row: Any = d_sums[rows[k] * width : rows[k] * width + width]
            for m in range(width):
                part[m] += row[m]
        for m in range(width):
            out[m] += part[m]
