"""The types in which tensor cores multiply: how a float32 is rounded to each, bit by bit.

As the GPU rounds (`cvt.rna.tf32`, `cvt.rn.bf16`, `cvt.rn.f16`): tf32 to the nearest, halves away
from zero; the two of 16 bits to the nearest, halves to even.
"""

from typing import Any

import numpy as np

from fastrnn_kernels import bfloat16

#: Values that a 32-bit register holds.
PER_WORD = {"tf32": 1, "bfloat16": 2, "float16": 2}


def bits(array: Any, compute: str) -> Any:
    """float32 values rounded, as the bits of each: uint32 of tf32, else uint16."""
    if compute == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).view(np.uint16)
    if compute == "bfloat16":
        return bfloat16.bits(array)
    # The bits beneath tf32's ten are left out; what is not finite has none that count.
    words = array.view(np.uint32)
    nearest = (words + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(array), nearest, words)


def values(found: Any, compute: str) -> Any:
    """The float32 values of such bits."""
    if compute == "float16":
        return found.view(np.float16).astype(np.float32)
    return bfloat16.values(found) if compute == "bfloat16" else found.view(np.float32)


def rounded(array: Any, compute: str) -> Any:
    """float32 values as the nearest that a type has."""
    return values(bits(array, compute), compute)
