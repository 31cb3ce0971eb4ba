"""How fast a case could be at most on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from fastrnn.bench.cases import ITEM_BYTES, Case


def step_bytes(case: Case) -> int:
    """Bytes of weights that every time step has to read anew.

    Of a sequence these are the recurrent weights R (GH*H, H): the product for x can be taken for
    many steps at once. A single step reads W (G*H, I) too.
    """
    _, _, I, H = case.shape
    columns = case.equations.GH * H + (case.gates * I if case.stepwise else 0)
    return H * columns * ITEM_BYTES[case.dtype]


def bandwidth(
    size: int, probes: Mapping[str, float], caches: Mapping[str, int], threads: int
) -> float:
    """Bytes/s at which `size` bytes are read over and over, each thread its slice of them."""
    slice_ = size / threads
    if slice_ <= caches["L1"]:
        return probes["L1"]
    if slice_ <= caches["L2"]:
        return probes["L2"]
    if "L3" in probes and size <= caches["L3"]:
        return probes["L3"]
    return probes["memory"]


def seconds(
    case: Case, probes: Mapping[str, float], caches: Mapping[str, int], threads: int
) -> float:
    """The least time of one call: all products at the peak, or all weights at the bandwidth.

    Whichever takes longer bounds the call (Williams et al. 2009). Training reads R forwards and
    its transpose backwards.
    """
    T = case.shape.T if case.lengths is None else max(case.lengths)
    reads = 2 * T if case.pass_ == "train" else T
    size = step_bytes(case)
    return max(
        case.flops / probes["fma"],
        reads * size / bandwidth(size, probes, caches, threads),
    )
