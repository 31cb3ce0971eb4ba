"""How the weights of a stream are stored: in full, as bfloat16, or as 8 bits and a scale.

A step of one row is bound by reading its weights; arithmetic, sums and states are the same
for all. Panels [panel][K][width] in float32 become

    bf16    [panel][(K + 1) / 2][width] of int32, two values of k in one element (`pairs.py`)
    int8    [panel][K][width] of int8, and scales [panel][width] of float32: each column of a
            panel, which is a row of the weights, has its own, so that its largest is 127
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.product.pairs import paired

FULL, BF16, INT8 = "full", "bf16", "int8"

#: Values of k that share an element of a panel.
GROUP = {FULL: 1, BF16: 2, INT8: 1}


def element(storage: str, dtype: types.Type) -> types.Type:
    """The type of a panel's elements."""
    return {FULL: dtype, BF16: types.int32, INT8: types.int8}[storage]


def elements(storage: str) -> Any:
    """A function of K: elements of a panel's column that hold K values."""
    group = GROUP[storage]
    return inlined(lambda K: (K + group - 1) // group)


def stored(panels: Array, K: int, width: int, storage: str) -> tuple[Array, Array]:
    """Panels [panel][K][width] stored so, and their scales."""
    none = np.empty(0, panels.dtype)
    if storage == FULL:
        return panels, none
    if storage == BF16:
        return paired(panels, K, width), none
    values = panels.reshape(-1, K, width)
    scales = np.abs(values).max(axis=1) / np.float32(127)
    # Where all are zero, any scale will do; where one is not finite, the scale makes all NaN.
    steps = np.where((scales > 0) & np.isfinite(scales), scales, np.float32(1))
    usable = np.where(np.isfinite(scales)[:, None], values, np.float32(0))
    rounded = np.rint(usable / steps[:, None])
    scales = np.where(np.isfinite(scales), steps, np.float32(np.nan))
    return rounded.astype(np.int8).reshape(-1), scales.reshape(-1)


def loaded(builder: Any, pointer: Any, storage: str, vector: Any) -> list[Any]:
    """The vectors of one element of a panel's columns, of each value of k that it holds."""
    if storage == FULL:
        item = 4 if isinstance(vector.element, ir.FloatType) else 8
        return [builder.load(builder.bitcast(pointer, vector.as_pointer()), align=item)]
    numbers = ir.VectorType(ir.IntType(32), vector.count)
    if storage == BF16:
        pairs = builder.load(builder.bitcast(pointer, numbers.as_pointer()), align=4)
        sixteen = ir.Constant(numbers, [16] * vector.count)
        upper = ir.Constant(numbers, [-(1 << 16)] * vector.count)
        halves = builder.shl(pairs, sixteen), builder.and_(pairs, upper)
        return [builder.bitcast(half, vector) for half in halves]
    bytes_ = ir.VectorType(ir.IntType(8), vector.count)
    small = builder.load(builder.bitcast(pointer, bytes_.as_pointer()), align=1)
    return [builder.sitofp(builder.sext(small, numbers), vector)]
