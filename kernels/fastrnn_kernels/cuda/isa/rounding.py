"""The types in which tensor cores multiply: how a float32 is rounded to each, bit by bit.

As the GPU rounds (`cvt.rna.tf32`, `cvt.rn.bf16`, `cvt.rn.f16`): tf32 to the nearest, halves away
from zero; the two of 16 bits to the nearest, halves to even.
"""

from typing import Any

import numpy as np

#: Values that a 32-bit register holds.
PER_WORD = {"tf32": 1, "bfloat16": 2, "float16": 2}


def bits(array: Any, products: str) -> Any:
    """float32 values rounded, as the bits of each: uint32 of tf32, else uint16."""
    if products == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).view(np.uint16)
    words = array.view(np.uint32)
    magnitude = words & np.uint32(0x7FFFFFFF)
    if products == "tf32":
        # The bits beneath tf32's ten are left out; what is not finite has none that count.
        nearest = (words + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        return np.where(magnitude < 0x7F800000, nearest, words)
    even = (words >> np.uint32(16)) & np.uint32(1)
    rounded = (words + np.uint32(0x7FFF) + even) >> np.uint32(16)
    return np.where(magnitude <= 0x7F800000, rounded, 0x7FFF).astype(np.uint16)


def values(found: Any, products: str) -> Any:
    """The float32 values of such bits."""
    if products == "float16":
        return found.view(np.float16).astype(np.float32)
    if products == "bfloat16":
        found = found.astype(np.uint32) << np.uint32(16)
    return found.view(np.float32)


def rounded(array: Any, products: str) -> Any:
    """float32 values as the nearest that a type has."""
    return values(bits(array, products), products)
