"""How a resident pass is divided among blocks and threads, and what a step of it takes.

A step multiplies an operand (rows, K) by a block's columns of R (K, N): forward h by the rows of
R of all gates of its units, backward the gradients of the sums by R's columns of its units. The
choice among divisions is by a model of a multiprocessor's clocks; it was counted from the
instructions of the kernels, and no part of it has been measured yet.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cuda.isa.rounding import PER_WORD

#: Loads of operands of tensor cores that are under way at a time.
AHEAD = 8
#: Threads to a block, at most.
MOST_THREADS = 512
#: Registers of a thread beside those that hold R, running sums and operands under way, of plain
#: products and of tensor cores: as many as ptxas was seen to want before it spills.
OTHER_REGISTERS, OTHER_TENSOR_REGISTERS = 106, 98
#: Registers of a thread, at most; some of the 255 that there are stay free for the compiler.
MOST_REGISTERS = 248
#: Rows of a product of tensor cores, its columns, and threads that compute it.
TILE_ROWS, TILE_COLUMNS, WARP = 16, 8, 32
#: Rows from which on tensor cores are worth their sixteen.
TENSOR_ROWS = 8
#: The rows by which parts of sums are chosen, whatever the batch.
NOMINAL_ROWS = 4

#: Clocks a second of a multiprocessor; clocks until a value comes from the second-level cache,
#: of a barrier of a block and of all blocks; bytes that a multiprocessor reads from that cache
#: in a clock while all do.
CLOCK, FAR, MEET, MEET_ALL, FAR_BYTES = 1.75e9, 650, 40, 1900, 40
#: The same of a barrier of a cluster, with the way to another's shared memory, and of that.
MEET_NEAR, NEAR_BYTES = 500, 16
#: Blocks of a cluster, of which any GPU that has clusters takes eight; the capability of those.
CLUSTERS, CLUSTERED = (2, 4, 8), (9, 0)
#: Clocks of a cell's equations, and from a multiply-add, or a product of tensor cores, to one that
#: needs its result.
EQUATIONS, LATENCY, TENSOR_LATENCY = 250, 4, 33


class Gpu(NamedTuple):
    """What a division follows from."""

    multiprocessors: int
    shared_bytes: int  # that a block may have at most
    capability: tuple[int, int] = (0, 0)


class Division(NamedTuple):
    """Who computes what, all of it known when a kernel is compiled.

    A thread, or with tensor cores a warp, sums every C-th chunk of the K products of some
    columns. R is cut into fragments to match, of one chunk and one of its columns each.
    """

    H: int
    gates: int
    backward: bool
    item: int  # bytes of a value
    multiprocessors: int
    units: int  # of a block, U
    blocks: int = 1
    gridded: bool = False  # whether all blocks share the units, and meet at every step
    cluster: int = 1  # blocks that do so in each other's shared memory, each for some rows
    compute: str = ""  # the type that tensor cores multiply; none, in the type of the values
    rows: int = 1  # of a batch, that a block takes at a time
    group: int = 1  # of those, that are multiplied at a time
    parts: int = 1  # C, of a sum
    columns: int = 1  # of a thread, or tiles of them of a warp
    held: int = 0  # fragments of a thread in registers; the others are in shared memory

    @property
    def depth(self) -> int:
        """K, the products of a sum."""
        return self.gates * self.H if self.backward else self.H

    @property
    def width(self) -> int:
        """N, the sums of a row."""
        return self.units if self.backward else self.gates * self.units

    @property
    def vector(self) -> int:
        """Values of a fragment, or words of two neighbours in each lane of a tile."""
        return 2 if self.compute else 16 // self.item

    @property
    def values(self) -> int:
        """Values of R in a fragment of a thread."""
        return self.vector * (PER_WORD[self.compute] if self.compute else 1)

    @property
    def chunk(self) -> int:
        """Values along K of a fragment."""
        return 8 * PER_WORD[self.compute] if self.compute else self.vector

    @property
    def chunks(self) -> int:
        """Chunks of a thread."""
        in_all = -(-self.depth // self.chunk)
        return -(-in_all // self.parts)

    @property
    def padded_depth(self) -> int:
        """K to whole chunks of all threads."""
        return self.parts * self.chunks * self.chunk

    @property
    def fragments(self) -> int:
        """Fragments of R that a thread has."""
        return self.chunks * self.columns

    @property
    def lanes(self) -> int:
        """Threads to a part."""
        return WARP if self.compute else -(-self.width // self.columns)

    @property
    def workers(self) -> int:
        """Threads that multiply."""
        return self.lanes * self.parts

    @property
    def threads(self) -> int:
        """Threads to a block: of those that multiply, some apply a unit's gates to a row each."""
        return -(-max(self.workers, self.rows * self.units) // WARP) * WARP

    @property
    def padded_width(self) -> int:
        """N to whole columns of all threads."""
        return (TILE_COLUMNS if self.compute else self.lanes) * self.columns

    @property
    def operand_at(self) -> int:
        """Where in shared memory the operand (rows, K) begins, behind the fragments of R."""
        return (self.fragments - self.held) * self.workers * self.vector

    @property
    def sums_at(self) -> int:
        """Where in shared memory the parts of sums (C, rows, N) begin."""
        return self.operand_at + (
            0 if self.compute else self.halves * self.rows * self.padded_depth
        )

    @property
    def halves(self) -> int:
        """Operands that there are: in a cluster, that of the next step is written meanwhile."""
        return 2 if self.cluster > 1 else 1

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory to a block."""
        return (self.sums_at + self.parts * self.rows * self.padded_width) * self.item

    @property
    def registers(self) -> int:
        """Registers of a thread, about."""
        held = self.held * self.vector
        if self.compute:
            sums, ahead = 4 * self.columns, 4 * min(AHEAD, self.chunks) + 2 * self.columns
            return OTHER_TENSOR_REGISTERS + held + sums + ahead
        sums = (self.group + self.vector) * self.columns
        return OTHER_REGISTERS + (held + sums) * self.item // 4

    @property
    def compiled(self) -> "Division":
        """What kernels are compiled for, which tiles of rows each of its own are not part of."""
        return self._replace(
            multiprocessors=0, blocks=self.blocks if self.gridded else self.cluster
        )

    @property
    def cut(self) -> "Division":
        """What the fragments of R follow from."""
        return self.compiled._replace(rows=1, group=1, held=0)

    def exchanged(self, B: int) -> int:
        """Values of an operand that blocks exchange, through global memory or each other's."""
        if not self.gridded:
            return self.rows * self.padded_depth if self.cluster > 1 else 0
        per_value = PER_WORD[self.compute] if self.compute else 1
        return -(-B // self.rows) * self.rows * self.padded_depth // per_value

    def seconds(self, B: int) -> float:
        """What a step of a batch is expected to take."""
        tiles = -(-B // self.rows) if self.gridded else 1
        groups = -(-min(B, self.rows) // self.group)
        tile = groups * self._product() + self._gates()
        if self.gridded:
            tile += FAR + self.exchanged(1) * self.item / FAR_BYTES
            return (MEET_ALL + tiles * tile) / CLOCK
        if self.cluster > 1:
            tile += MEET_NEAR + self.rows * self.padded_depth * self.item / NEAR_BYTES
        waves = -(-self.blocks // (self.multiprocessors // self.cluster * self.cluster))
        return waves * tile / CLOCK

    def _product(self) -> float:
        """Clocks of a group's product: of what is busiest, or of its longest chain."""
        warps, spare, wide = self.workers / WARP, self.fragments - self.held, self.item // 4
        if self.compute:
            # A multiprocessor's four tensor cores do 1024 products of tf32 in a clock, twice as
            # many of 16 bits; mma.sync reaches six tenths of that.
            tensor = warps * self.fragments / 0.6
            shared = warps * (2 * spare + 4 * self.columns)
            return max(tensor, shared, TENSOR_LATENCY * self.chunks)
        loads = self.chunks * self.group
        multiplied = self.group * self.fragments * self.vector * wide
        issued = warps * (multiplied + loads + spare) / 4
        shared = warps * (loads + 4 * spare + self.group * self.columns)
        return max(issued, shared, LATENCY * self.chunks * self.vector) + 30

    def _gates(self) -> float:
        """Clocks of adding up the parts of sums and of the equations, between two barriers."""
        sums = 1 if self.backward else self.gates
        return 2 * MEET + 30 + 2 * self.parts * sums + EQUATIONS


def _fitted(given: Division, gpu: Gpu) -> Division | None:
    """The division with as much of R in registers as they hold, or None if it does not fit."""
    if given.threads > 2 * MOST_THREADS:
        return None
    # A multiprocessor's registers are in four parts, which share a block's warps.
    warps = -(-given.threads // (4 * WARP))
    most = min(MOST_REGISTERS, 65536 // (4 * WARP * warps) // 8 * 8)
    room = most - given._replace(held=0).registers
    held = min(given.fragments, room * 4 // (given.vector * given.item))
    found = given._replace(held=max(0, held))
    return found if room >= 0 and found.shared_bytes <= gpu.shared_bytes else None


def _quickest(tried: Iterable[Division], B: int, gpu: Gpu) -> Division | None:
    fitting = (_fitted(given, gpu) for given in tried)
    found = [division for division in fitting if division is not None]
    return min(found, key=lambda division: division.seconds(B), default=None)


@cache
def _parted(given: Division, gpu: Gpu) -> Division | None:
    """The parts and columns that are quickest for a few rows."""
    tried = []
    for columns in range(1, min(given.width, 8) + 1):
        lanes = -(-given.width // columns)
        most = min(-(-given.depth // given.vector), max(1, MOST_THREADS // lanes))
        for parts in range(1, most + 1):
            tried.append(given._replace(parts=parts, columns=columns))
    return _quickest(tried, NOMINAL_ROWS, gpu)


def _tiled(given: Division, tiles: Iterable[int], B: int, gpu: Gpu) -> Division | None:
    """The rows at a time that are quickest."""
    tried = [
        given._replace(rows=rows, group=group)
        for rows in tiles
        for group in (1, 2, 4, 8)
        if group <= rows < 2 * B
    ]
    return _quickest(tried, B, gpu)


@cache
def one_block(
    cell: Cell, H: int, B: int, item: int, gpu: Gpu, backward: bool, compute: str = ""
) -> Division | None:
    """The division by rows, a block or a cluster of them holding all of R; None if none can.

    Products are in the type of the values, whatever `compute` says.
    """
    found = []
    for cluster in (1, *(CLUSTERS if gpu.capability >= CLUSTERED else ())):
        units = -(-H // cluster)
        if cluster > gpu.multiprocessors or units * (cluster - 1) >= H:
            continue
        given = Division(H, cell.GH, backward, item, gpu.multiprocessors, units, cluster=cluster)
        parted = _parted(given._replace(blocks=cluster), gpu)
        for rows in (1, 2, 4, 8, 16):
            if parted and rows < 2 * B:
                blocks = -(-B // rows) * cluster
                made = _tiled(parted._replace(blocks=blocks), (rows,), B, gpu)
                found += [made] if made else []
    return min(found, key=lambda division: division.seconds(B), default=None)


@cache
def all_blocks(
    cell: Cell, H: int, B: int, item: int, gpu: Gpu, backward: bool, compute: str = ""
) -> Division | None:
    """The division by units, all blocks together holding R; None where it does not fit.

    `compute` names the type that tensor cores multiply, where there are rows enough for them.
    """
    units = -(-H // gpu.multiprocessors)
    if units == H:
        return None
    blocks = -(-H // units)
    given = Division(H, cell.GH, backward, item, gpu.multiprocessors, units, blocks, gridded=True)
    tensor = compute in PER_WORD and item == 4
    if tensor and B >= TENSOR_ROWS and gpu.capability >= (8, 0):
        tiles = -(-given.width // TILE_COLUMNS)
        given = given._replace(compute=compute, columns=tiles, group=TILE_ROWS)
        tried = [
            given._replace(parts=parts, rows=rows)
            for parts in range(1, MOST_THREADS // WARP + 1)
            for rows in (16, 32, 64)
            if rows < 2 * max(B, TILE_ROWS)
        ]
        return _quickest(tried, B, gpu)
    parted = _parted(given, gpu)
    return parted and _tiled(parted, (1, 2, 4, 8, 16, 32), B, gpu)


def divide(
    cell: Cell, H: int, B: int, item: int, gpu: Gpu, backward: bool, compute: str = ""
) -> Division | None:
    """The quicker division of a pass, or None where R does not fit.

    The bits of a row's sums follow from the parts and the type to compute in. For one block and for
    all, those follow from H; a cluster's size, and whether tensor cores have rows enough, from B
    too. The values of other rows never have a part in them.
    """
    size = cell, H, B, item, gpu, backward, compute
    found = [division for division in (one_block(*size), all_blocks(*size)) if division]
    return min(found, key=lambda division: division.seconds(B), default=None)
