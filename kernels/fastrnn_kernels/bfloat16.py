"""bfloat16 in NumPy, which has no such type: the upper half of a float32."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def bits(values: Array) -> Array:
    """float32 as the bits of bfloat16, rounded to nearest, halves to even; NaN stays NaN."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))
    # Rounding could carry a NaN's bits into infinity: it keeps its own, and stays quiet.
    up = np.where(np.isnan(values), words | np.uint32(1 << 22), up)
    return (up >> np.uint32(16)).astype(np.uint16)


def values(bits: Array) -> Array:
    """The float32 values of bits of bfloat16."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
