"""How the rows and panels of a product are stored: as they are, or as pairs of bfloat16.

In bfloat16 the products read half the bytes and, on hosts that multiply pairs, do twice the
work; sums, gates and states stay float32. Two values of k that follow each other share 32
bits, the first in the lower half, in rows as in panels; an odd one has 0 beside it.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrnn_kernels import bfloat16
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import data_of
from fastrnn_kernels.cpu.isa.vector import Vector, first_lanes, load_part, store

#: Values of a row that make an element of the arrays which register blocks read.
VALUES = {"float32": 1, "float64": 1, "bfloat16": 2}


@intrinsic
def _store_rounded(typingctx, array, at, many, value):  # type: ignore[no-untyped-def]
    """Store a vector as bfloat16, rounded to nearest, zeros in lanes from `many` on.

    array: of pairs, int32; at: counted in values.
    """
    if not isinstance(value, Vector) or value.dtype != types.float32:
        return None

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = data_of(context, builder, signature.args[0], args[0])
        lanes = signature.args[3].count
        number = ir.VectorType(ir.IntType(32), lanes)
        half = ir.VectorType(ir.IntType(16), lanes)

        def every(constant: int) -> Any:
            return ir.Constant(number, [constant] * lanes)

        kind = context.get_value_type(signature.args[3])
        zeros = ir.Constant(kind, [0.0] * lanes)
        value = builder.select(first_lanes(builder, lanes, args[2]), args[3], zeros)
        bits = builder.bitcast(value, number)
        odd = builder.and_(builder.lshr(bits, every(16)), every(1))
        rounded = builder.add(builder.add(bits, every(0x7FFF)), odd)
        # Rounding could carry a NaN's bits into infinity: it keeps its own, and stays quiet.
        is_nan = builder.fcmp_unordered("uno", value, value)
        rounded = builder.select(is_nan, builder.or_(bits, every(1 << 22)), rounded)
        shorts = builder.trunc(builder.lshr(rounded, every(16)), half)
        first = builder.gep(builder.bitcast(data, ir.IntType(16).as_pointer()), [args[1]])
        builder.store(shorts, builder.bitcast(first, half.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), codegen


def keeper(values: int) -> Any:
    """A function `(rows, at, many, vector)` that stores a vector of a product's row.

    `at` counts values; lanes from `many` on may be anything, or zeros.
    """
    if values == 2:
        return inlined(lambda rows, at, many, vector: _store_rounded(rows, at, many, vector))
    store_one = store(1)
    return inlined(lambda rows, at, many, vector: store_one(rows, at, 0, (vector,)))


def row_keeper(values: int) -> Any:
    """A function `(rows, at, source, source_at, many, lanes)` that stores a whole row."""
    keep, part = keeper(values), load_part()

    @inlined
    def keep_row(rows, at, source, source_at, many, lanes):  # type: ignore[no-untyped-def]
        for u in range(0, many, lanes):
            keep(rows, at + u, many - u, part(source, source_at + u, many - u))

    return keep_row


def paired(panels: Array, K: int, width: int) -> Array:
    """Panels [panel][K][width] of float32 -> [panel][(K + 1) / 2][width] of pairs."""
    many = panels.size // max(1, K * width)
    pairs = (K + 1) // 2
    halves = np.zeros((many, 2 * pairs, width), np.uint16)
    halves[:, :K] = bfloat16.bits(panels.reshape(many, K, width))
    ordered = halves.reshape(many, pairs, 2, width).swapaxes(2, 3)
    return np.ascontiguousarray(ordered).view(np.int32).reshape(-1)
