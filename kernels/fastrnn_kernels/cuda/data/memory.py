"""Memory of the GPU: what a call takes of it at least, and whether there is so much."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from numba import config

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import xp
from fastrnn_kernels.tape import Tape

#: Bytes under which the driver is not asked: that alone takes as long as a small call. A call
#: that then finds no memory fails by CuPy's own MemoryError.
UNASKED = 64 << 20


def room() -> tuple[int, int]:
    """Bytes that are free for this process, and all that the GPU has."""
    if config.ENABLE_CUDASIM:
        return 1 << 62, 1 << 62
    free, total = xp.cuda.runtime.memGetInfo()
    return int(free) + int(xp.get_default_memory_pool().free_bytes()), int(total)


def _check(needed: int, what: Callable[[], str]) -> None:
    if needed < UNASKED:
        return
    free, total = room()
    if needed > free:
        raise MemoryError(
            f"{what()} takes at least {needed:,} bytes of the GPU's memory, and {free:,} of "
            f"{total:,} are free"
        )


def check_forward(
    weights: Sequence[Weights],
    D: int,
    T: int,
    B: int,
    taping: bool,
    copied: int,
    what: Callable[[], str],
) -> None:
    """Raise MemoryError, with the bytes needed and there, where a forward pass cannot fit.

    weights: of all layers and D directions, layer-major. copied: bytes of its input, if that
    is copied.
    """
    needed = T * B * _row_bytes(weights, D, taping) + copied
    if needed >= UNASKED or not _uploaded(weights[-1]):
        _check(needed + _missing_bytes(weights), what)


def check_backward(tapes: Sequence[Tape[Weights]], D: int, what: Callable[[], str]) -> None:
    """Raise MemoryError, with the bytes needed and there, where a backward pass cannot fit."""
    _check(backward_bytes(tapes, D), what)


def backward_bytes(tapes: Sequence[Tape[Weights]], D: int) -> int:
    """The least that a backward pass takes beside its tape and dy: gradients of sums and of x."""
    most = 0
    for k in range(0, len(tapes), D):
        weights = tapes[k].weights
        sums = weights.cell.S * weights.hidden_size
        most = max(most, D * sums + weights.input_size)
    rows = tapes[0].rows
    return rows.T * rows.B * most * tapes[0].weights.dtype.itemsize


def _uploaded(weights: Weights) -> bool:
    return "matrices" in weights.__dict__


def _missing_bytes(weights: Sequence[Weights]) -> int:
    """Bytes of the weights that are not on the GPU yet."""
    parts = ((one.w_ih, one.w_hh, one.w_hr, one.units) for one in weights if not _uploaded(one))
    return sum(part.nbytes for each in parts for part in each if part is not None)


#: What `_row_bytes` found, by the first of the weights.
_found: "WeakKeyDictionary[Weights, dict[tuple[int, int, bool], int]]" = WeakKeyDictionary()


def _row_bytes(weights: Sequence[Weights], D: int, taping: bool) -> int:
    """Bytes of a forward pass to a time step of a row."""
    found = _found.setdefault(weights[0], {})
    key = len(weights), D, taping
    if key not in found:
        found[key] = _row_values(weights, D, taping) * weights[0].dtype.itemsize
    return found[key]


def _row_values(weights: Sequence[Weights], D: int, taping: bool) -> int:
    kept, most, before = 0, 0, 0
    for k in range(0, len(weights), D):
        group = weights[k : k + D]
        y = D * group[0].state_size
        sums = group[0].cell.G * group[0].hidden_size
        if taping:
            kept += y + sum(map(_tape_values, group))
            most = max(most, sums)
        else:
            most = max(most, before + y + sums)
        before = y
    return kept + most


def tape_bytes(weights: Weights, T: int, B: int) -> int:
    """Bytes of the tape of a forward pass, without its input."""
    return T * B * _tape_values(weights) * weights.dtype.itemsize


def _tape_values(weights: Weights) -> int:
    """Values that a tape keeps of a step of a row."""
    cell, H, P = weights.cell, weights.hidden_size, weights.state_size
    wide = cell.K + cell.N - 1 + bool(cell.late) + (weights.w_hr is not None)
    return wide * H + P
