"""R in fragments, in the order in which the threads of a division take them."""

import numpy as np

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.isa.rounding import PER_WORD, bits
from fastrnn_kernels.cuda.launch.arrays import Array, wait, xp
from fastrnn_kernels.cuda.launch.launch import caller_key
from fastrnn_kernels.cuda.resident.division import TILE_COLUMNS, Division


def fragments_of(weights: Weights, division: Division) -> Array:
    """R in fragments, flat; made once for a way to cut it and a stream, to which it returns."""
    cut = division.cut

    def make() -> Array:
        made = _cut(weights.matrices.h, cut)
        wait()  # a stream that is made later may have this one's address
        return made

    return weights.recent.get(("fragments", cut, caller_key()), make)


def _cut(matrix: Array, division: Division) -> Array:
    """R (E H, H) in fragments; 0 where there is none."""
    flat = xp.concatenate([matrix.reshape(-1), xp.zeros(1, matrix.dtype)])
    found = flat[_places(division)]
    if not division.compute:
        return found
    # Two of 16 bits make a word, the first its lower half.
    return bits(found, division.compute).view(np.float32)


def _places(division: Division) -> Array:
    """Where in R each value of its fragments is, flat; right behind it where there is none."""
    H, C, V, L = division.H, division.parts, division.columns, division.lanes
    shape = division.blocks, division.chunks, V, division.workers, division.values
    block, i, v, worker, j = xp.indices(shape, dtype=np.int32)
    c, lane = worker // L, worker % L
    chunk = c + i * C
    if division.compute:
        per = PER_WORD[division.compute]
        word, half = j // per, j % per
        k = chunk * division.chunk + (lane % 4 + 4 * word) * per + half
        n = v * TILE_COLUMNS + lane // 4
    else:
        k = chunk * division.chunk + j
        n = lane + v * L
    e, u = n // division.units, n % division.units
    u = u + block * division.units
    inside = (k < division.depth) & (n < division.width) & (u < H)
    row, column = (k, u) if division.backward else (e * H + u, k)
    return xp.where(inside, row * H + column, division.gates * H * H).reshape(-1)
