"""Which path a pass takes: one launch with R on chip where that is quicker, else step by step."""

from functools import cache

from numba import config, cuda

from fastrnn_kernels.cuda import passes, resident, stepwise
from fastrnn_kernels.cuda.division import Division, Gpu, divide
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
    return Gpu(device.MULTIPROCESSOR_COUNT, device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)


def division_of(weights: Weights, B: int, backward: bool) -> Division | None:
    """How a resident pass would be divided, or None where one step by step is quicker."""
    cell, H = weights.cell, weights.hidden_size
    if cell.late or weights.w_hr is not None or B == 0:
        return None
    here = gpu()
    found = divide(cell, H, B, weights.dtype.itemsize, here, backward)
    if found is None or not found.gridded:
        return found
    work = B * len(cell.gates) * H * H * weights.dtype.itemsize / 4 / here.multiprocessors
    resident_s = BARRIER_S + work / RESIDENT_RATE
    return found if resident_s < LAUNCHES_S + work / PRODUCT_RATE else None


def run_forward(given: passes.Forward) -> None:
    """Run a forward pass on the path that suits its shape."""
    rows, P = given.rows, given.weights.state_size
    if rows.ragged or rows.T == 0:
        given.y[:, :, given.y_at : given.y_at + P] = 0  # kernels write where a row runs
        # What has no step at all ends where it starts.
        given.final_h[...] = given.start_h
        given.final_rest[...] = given.start_rest
    division = division_of(given.weights, rows.B, False)
    if division is None:
        stepwise.forward(given)
    else:
        resident.forward(given, division)


def run_backward(given: passes.Backward) -> None:
    """Run a backward pass on the path that suits its shape."""
    division = division_of(given.tape.weights, given.tape.rows.B, True)
    if division is None:
        stepwise.backward(given)
    else:
        resident.backward(given, division)
