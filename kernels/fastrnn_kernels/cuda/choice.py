"""Which path a pass takes: one launch with R on chip where that is quicker, else step by step."""

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import config, cuda

from fastrnn_kernels.cuda import passes, resident, stepwise
from fastrnn_kernels.cuda.division import Division, Gpu, all_blocks, divide, one_block
from fastrnn_kernels.cuda.weights import Weights

#: Seconds of a step's barrier among all blocks; and of a step's launches from Python without,
#: most of them for describing some twenty arrays to each. Assumed, not yet measured.
BARRIER_S, LAUNCHES_S = 1.5e-6, 1.5e-4
#: Multiply-adds a second of one multiprocessor, in float32: the resident kernels', and a
#: library's product. Assumed, not yet measured.
RESIDENT_RATE, PRODUCT_RATE = 1.0e11, 1.7e11


@cache
def gpu() -> Gpu:
    """The current GPU; the simulator runs one block at a time."""
    if config.ENABLE_CUDASIM:
        return Gpu(1, 48 << 10)
    device = cuda.get_current_device()
    return Gpu(
        device.MULTIPROCESSOR_COUNT,
        device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        tuple(device.compute_capability),
    )


def division_of(weights: Weights, B: int, backward: bool) -> Division | None:
    """How a resident pass would be divided, or None where one step by step is quicker."""
    cell, H = weights.cell, weights.hidden_size
    if cell.late or weights.w_hr is not None or B == 0:
        return None
    here = gpu()
    found = divide(cell, H, B, weights.dtype.itemsize, here, backward, weights.products)
    if found is None or not found.gridded:
        return found
    work = B * len(cell.gates) * H * H * weights.dtype.itemsize / 4 / here.multiprocessors
    resident_s = BARRIER_S + work / RESIDENT_RATE
    return found if resident_s < LAUNCHES_S + work / PRODUCT_RATE else None


def division_of_both(weights: Weights, B: int, backward: bool) -> Division | None:
    """How both directions run in one launch, half of the multiprocessors each.

    None where two launches, one after the other, are quicker.
    """
    alone, here = division_of(weights, B, backward), gpu()
    if alone is None or here.multiprocessors < 2:
        return None
    divided = all_blocks if alone.gridded else one_block
    found = divided(
        weights.cell, weights.hidden_size, B, weights.dtype.itemsize,
        here._replace(multiprocessors=here.multiprocessors // 2), backward, weights.products,
    )  # fmt: skip
    return found if found and found.seconds(B) < 2 * alone.seconds(B) else None


def run_forward(*given: passes.Forward) -> None:
    """Run forward passes, of one direction of a layer or of both, on the path that suits them."""
    for one in given:
        passes.prepare_forward(one)
    _run(given, given[0].weights, given[0].rows.B, False, resident.forward, stepwise.forward)


def run_backward(*given: passes.Backward) -> None:
    """Run backward passes, of one direction of a layer or of both, on the path that suits them."""
    tape = given[0].tape
    _run(given, tape.weights, tape.rows.B, True, resident.backward, stepwise.backward)


def _run(
    given: tuple[Any, ...],
    weights: Weights,
    B: int,
    backward: bool,
    on_chip: Callable[..., None],
    by_steps: Callable[[Any], None],
) -> None:
    both = division_of_both(weights, B, backward) if len(given) == 2 else None
    division = both or division_of(weights, B, backward)
    for one in (given,) if both else zip(given, strict=True):
        if division is None:
            by_steps(*one)
        else:
            on_chip(*one, division=division)
