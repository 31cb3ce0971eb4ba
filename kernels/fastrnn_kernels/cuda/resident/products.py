"""The product of a step: an operand (rows, K) by a block's columns of R (K, N).

A block's R is cut into fragments (`division.py`), in the order in which its threads have them:
(blocks, chunks, columns, workers, vector). One of plain products is `vector` neighbours along
K of one column; chunk i of part c is the chunk c + i C of all, column v of lane l is l + v L.
One of tensor cores is what a lane has of a tile (chunk, 8 columns): two words, of a value of
tf32 or of two of 16 bits each. They multiply it by 16 rows of the operand, of which a lane has
four words. In each, as PTX says, with g = lane / 4, p = lane % 4, and k the word along K:

    operand  row g, k = p;  row g + 8, k = p;  row g, k = p + 4;  row g + 8, k = p + 4
    R        k = p, column g;  k = p + 4, column g
    sums     row g, columns 2 p, 2 p + 1;  row g + 8, columns 2 p, 2 p + 1

The operand of tensor cores is exchanged in that order, (row tiles, chunks, lanes, 4), so that a
lane reads its words at once and no block needs a copy.
"""

from functools import cache
from typing import Any

from fastrnn_kernels.cuda.isa.operations import operation
from fastrnn_kernels.cuda.isa.rounding import PER_WORD
from fastrnn_kernels.cuda.isa.values import device
from fastrnn_kernels.cuda.resident.division import AHEAD, TILE_COLUMNS, TILE_ROWS, WARP, Division


@cache
def keep(division: Division) -> Any:
    """A function `(held, shared, packed, at, spare_at)`: a thread's fragments of R to their places.

    at: where its first is; spare_at: where in shared memory its first goes that has no register.
    """
    width = division.vector
    step = division.workers * width

    def written(ops, held, shared, packed, at, spare_at):  # type: ignore[no-untyped-def]
        for fragment in range(division.fragments):
            values = ops.load(packed, at, fragment * step, width)
            if fragment < division.held:
                ops.store(held, 0, fragment * width, values)
            else:
                ops.store(shared, spare_at, (fragment - division.held) * step, values)

    return operation(written)


def _fragment(
    ops: Any, division: Division, fragment: int, held: Any, shared: Any, spare_at: Any
) -> Any:
    width = division.vector
    if fragment < division.held:
        return ops.load(held, 0, fragment * width, width)
    return ops.load(shared, spare_at, (fragment - division.held) * division.workers * width, width)


@cache
def multiply(division: Division) -> Any:
    """A function `(held, shared, operand, at, spare_at, sums_at)` of a group of rows.

    at: where a thread's first values of the operand are, in shared memory, or in the array of
    the exchange for tensor cores; sums_at: where its first part of a sum goes.
    """
    plain = _multiply_by_tensor_cores if division.compute else _multiply
    return operation(plain(division))


def _multiply(division: Division) -> Any:
    V, width = division.columns, division.vector
    rows, columns = range(division.group), range(V)

    def written(ops, held, shared, operand, at, spare_at, sums_at):  # type: ignore[no-untyped-def]
        sums = [[ops.zero(shared) for _ in columns] for _ in rows]
        for i in range(division.chunks):
            fragments = [
                _fragment(ops, division, i * V + v, held, shared, spare_at) for v in columns
            ]
            for r in rows:
                offset = r * division.padded_depth + i * division.parts * width
                values = ops.load(operand, at, offset, width)
                for v in columns:
                    for value, weight in zip(values, fragments[v], strict=True):
                        sums[r][v] = ops.fma(value, weight, sums[r][v])
        for r in rows:
            for v in columns:
                place = r * division.padded_width + v * division.lanes
                ops.store(shared, sums_at, place, [sums[r][v]])

    return written


def _multiply_by_tensor_cores(division: Division) -> Any:
    compute, tiles = division.compute, range(division.columns)
    step = division.parts * WARP * 4

    def written(ops, held, shared, operand, at, spare_at, sums_at):  # type: ignore[no-untyped-def]
        sums = [[ops.zero(shared)] * 4 for _ in tiles]
        for first in range(0, division.chunks, AHEAD):
            chunks = range(first, min(first + AHEAD, division.chunks))
            values = [ops.load_fresh(operand, at, i * step, 4) for i in chunks]
            for i in chunks:
                for v in tiles:
                    fragment = i * division.columns + v
                    weights = _fragment(ops, division, fragment, held, shared, spare_at)
                    sums[v] = ops.tensor(values[i - first], weights, sums[v], compute)
        for v in tiles:
            upper, lower = sums[v][:2], sums[v][2:]
            ops.store(shared, sums_at, v * TILE_COLUMNS, upper)
            ops.store(shared, sums_at, 8 * division.padded_width + v * TILE_COLUMNS, lower)

    return written


@cache
def add_parts(division: Division, first: int) -> Any:
    """A function `(shared, at, sums)`: adds up the parts of sums of a row and unit.

    at: where the first part of the first is; to sums[first] and its neighbours.
    """
    step = division.rows * division.padded_width
    count = 1 if division.backward else division.gates

    def written(ops, shared, at, sums):  # type: ignore[no-untyped-def]
        for e in range(count):
            (total,) = ops.load(shared, at, e * division.units, 1)
            for part in range(1, division.parts):
                (more,) = ops.load(shared, at, part * step + e * division.units, 1)
                total = ops.add(total, more)
            (before,) = ops.load(sums, 0, first + e, 1)
            ops.store(sums, 0, first + e, [ops.add(before, total)])

    return operation(written)


@cache
def put(division: Division) -> Any:
    """A function `(shared, exchange, at, r, b, k, value)`: value k of a row's next operand.

    To shared memory for row r of a block's tile, of all blocks of its cluster from `at` behind
    the operand's place; for all blocks to the exchange, from `at` on, for row b.
    """
    stride, operand_at, compute = division.padded_depth, division.operand_at, division.compute
    blocks = division.cluster
    if blocks > 1:

        def written(ops, shared, at, value):  # type: ignore[no-untyped-def]
            ops.store_to_all(shared, at, value, blocks)

        store_to_all = operation(written)

        @device
        def to_cluster(shared, exchange, at, r, b, k, value):  # type: ignore[no-untyped-def]
            store_to_all(shared, operand_at + at + r * stride + k, value)

        return to_cluster

    if not division.gridded:

        @device
        def to_block(shared, exchange, at, r, b, k, value):  # type: ignore[no-untyped-def]
            shared[operand_at + r * stride + k] = value

        return to_block

    if not compute:

        @device
        def to_all(shared, exchange, at, r, b, k, value):  # type: ignore[no-untyped-def]
            exchange[at + b * stride + k] = value

        return to_all

    per, chunk = PER_WORD[compute], division.chunk
    chunks = stride // chunk

    def written_rounded(ops, exchange, at, value):  # type: ignore[no-untyped-def]
        ops.store_rounded(exchange, at, value, compute)

    store_rounded = operation(written_rounded)

    @device
    def to_lanes(shared, exchange, at, r, b, k, value):  # type: ignore[no-untyped-def]
        tile = b // TILE_ROWS
        row = b - tile * TILE_ROWS
        place = k // chunk
        half = k - place * chunk
        word = half // per
        lane = row % 8 * 4 + word % 4
        register = row // 8 + word // 4 * 2
        word_at = at + ((tile * chunks + place) * WARP + lane) * 4 + register
        store_rounded(exchange, word_at * per + half - word * per, value)

    return to_lanes


@cache
def fetch(division: Division) -> Any:
    """A function `(shared, to, exchange, at)` that copies 16 bytes other blocks have written."""

    def written(ops, shared, to, exchange, at):  # type: ignore[no-untyped-def]
        ops.store(shared, to, 0, ops.load_fresh(exchange, at, 0, division.vector))

    return operation(written)


@cache
def started(division: Division) -> Any:
    """A function `(held, shared, packed, block, thread)`: R to its place, and an empty operand."""
    width, workers, threads = division.vector, division.workers, division.threads
    of_block = division.fragments * workers * width
    first, last = division.operand_at, division.sums_at
    keep_own = keep(division)

    @device
    def start(held, shared, packed, block, thread):  # type: ignore[no-untyped-def]
        if thread < workers:
            keep_own(held, shared, packed, block * of_block + thread * width, thread * width)
        for at in range(first + thread, last, threads):
            shared[at] = 0

    return start


@cache
def filled(division: Division) -> Any:
    """A function `(shared, exchange, at, q, thread)`: the operand of the tile from row q on.

    at: where in the exchange that of all rows begins.
    """
    width, rows, depth = division.vector, division.rows, division.padded_depth
    operand_at, threads = division.operand_at, division.threads
    fetch_vector = fetch(division)

    @device
    def fill(shared, exchange, at, q, thread):  # type: ignore[no-untyped-def]
        for vector in range(thread, rows * depth // width, threads):
            there = vector * width
            fetch_vector(shared, operand_at + there, exchange, at + q * depth + there)

    return fill


@cache
def multiplied(division: Division) -> Any:
    """A function `(held, shared, exchange, at, q, last_row, tile, thread)`: parts of the sums.

    Of the rows from q on, at most `tile`, which is the division's; were it known to the compiler,
    that would multiply all groups at once and run out of registers.
    """
    tensor, width, lanes = bool(division.compute), division.vector, division.lanes
    rows, group, depth = division.rows, division.group, division.padded_depth
    workers, padded = division.workers, division.padded_width
    operand_at, sums_at = division.operand_at, division.sums_at
    clustered = division.cluster > 1
    chunks = depth // division.chunk
    multiply_group = multiply(division)

    @device
    def multiply_tile(  # type: ignore[no-untyped-def]
        held, shared, exchange, at, q, last_row, tile, thread
    ):
        if thread < workers:
            c = thread // lanes
            lane = thread - c * lanes
            for r in range(0, min(tile, last_row - q), group):
                parts_at = sums_at + (c * rows + r) * padded
                if tensor:
                    tile_at = at + ((q + r) // TILE_ROWS * chunks + c) * WARP * 4
                    corner = lane // 4 * padded + lane % 4 * 2
                    multiply_group(
                        held, shared, exchange, tile_at + lane * 4, thread * width,
                        parts_at + corner,
                    )  # fmt: skip
                else:
                    multiply_group(
                        held, shared, shared,
                        operand_at + (at if clustered else 0) + r * depth + c * width,
                        thread * width, parts_at + lane,
                    )  # fmt: skip

    return multiply_tile


@cache
def cluster_barrier(division: Division) -> tuple[Any, Any]:
    """Functions `(thread)`, to arrive and to wait, of the barrier of a cluster."""
    blocks = division.cluster

    def arrived(ops, thread):  # type: ignore[no-untyped-def]
        ops.arrive_in_cluster(blocks)

    def waited(ops, thread):  # type: ignore[no-untyped-def]
        ops.wait_in_cluster(blocks)

    return operation(arrived), operation(waited)
