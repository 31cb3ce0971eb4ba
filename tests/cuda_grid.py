"""Grids on Numba's CUDA simulator, which runs one block at a time: here all blocks run at once.

A barrier of the grid then opens as on a GPU. Each block has shared memory of its own; memory
that is never written is NaN.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator import kernelapi

#: Threads that a tensor core serves at once.
WARP = 32
#: Seconds after which a barrier is taken for one that will never open.
PATIENCE = 60


class _Thread(simulator.BlockThread):
    """A thread that meets the others of its warp or block, or all."""

    def syncthreads(self) -> None:
        self._manager.meet_block(self.blockIdx)

    def meet_grid(self) -> None:
        self._manager.meet_grid()

    def arrive(self, met: Any, at: int) -> None:
        self._manager.arrive(met, at)

    def wait_for(self, met: Any, at: int, count: int) -> None:
        self._manager.wait_for(met, at, count)

    def store_to_all(self, dtype: Any, at: int, value: Any, blocks: int) -> None:
        for rank in range(blocks):
            block = self.cluster(blocks) * blocks + rank
            _Shared.current.of(block).array(0, dtype)[at] = value

    def cluster(self, blocks: int) -> int:
        return int(self.blockIdx.x) // blocks

    def arrive_in_cluster(self, blocks: int) -> None:
        self.came = getattr(self, "came", 0) + 1
        self._manager.arrive_in_cluster(self.cluster(blocks), blocks)

    def wait_in_cluster(self, blocks: int) -> None:
        self.phase = getattr(self, "phase", 0) + 1
        self._manager.wait_in_cluster(self.cluster(blocks), blocks, self.phase)

    def tensor(self, *registers: Any) -> list[Any]:
        return self._manager.warp_of(self).tensor(self.threadIdx.x % WARP, *registers)


class Warp:
    """What the tensor cores do for the lanes of a warp, which meet.

    Registers hold what the PTX ISA says of `mma.m16n8k8` (tf32) and `mma.m16n8k16` (types of 16
    bits, the lower half first), of A (16, K), B (K, 8) and C and D (16, 8), with `group` the
    lane's number by four and `within` its place there.
    """

    def __init__(self, lanes: int) -> None:
        self.barrier = threading.Barrier(lanes, self._multiply, PATIENCE)
        self._given: dict[int, Any] = {}
        self._compute = ""
        self._found: Any = None

    def tensor(self, lane: int, a: Any, b: Any, c: Any, compute: str) -> list[Any]:
        """D of a lane, when all 32 have given theirs."""
        self._given[lane] = a, b, c
        self._compute = compute
        self.barrier.wait()
        # The next product is made when all have come again: until then this one stays.
        group, within = divmod(lane, 4)
        return [self._found[place] for place in _places_of_sums(group, within)]

    def _multiply(self) -> None:
        assert len(self._given) == WARP, "a warp that is not whole"
        self._found = self._product(self._compute)
        self._given = {}

    def _product(self, compute: str) -> Any:
        per = 1 if compute == "tf32" else 2  # values in a register
        A = np.full((16, 8 * per), np.nan)
        B = np.full((8 * per, 8), np.nan)
        C = np.full((16, 8), np.nan, np.float32)
        for lane, (a, b, c) in self._given.items():
            group, within = divmod(lane, 4)
            for register, row, k in (
                (0, group, within), (1, group + 8, within),
                (2, group, within + 4), (3, group + 8, within + 4),
            ):  # fmt: skip
                A[row, k * per : (k + 1) * per] = _values(a[register], compute)
            for register, k in ((0, within), (1, within + 4)):
                B[k * per : (k + 1) * per, group] = _values(b[register], compute)
            for value, place in zip(c, _places_of_sums(group, within), strict=True):
                C[place] = value
        return (A @ B + C).astype(np.float32)


def _places_of_sums(group: int, within: int) -> list[tuple[int, int]]:
    columns = 2 * within, 2 * within + 1
    return [(row, column) for row in (group, group + 8) for column in columns]


def _values(register: Any, compute: str) -> Any:
    """What a register holds; tensor cores leave out the lower bits of tf32."""
    word = np.array([register], np.float32)
    if compute == "tf32":
        return (word.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    if compute == "float16":
        return word.view(np.float16)
    return (word.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


class _Grid:
    """Stands in for the manager of one block: the first runs all, and the others have nothing."""

    def __init__(self, function: Any, grid_dim: Any, block_dim: Any, debug: bool) -> None:
        self._function, self._debug = function, debug
        self._grid_dim, self._block_dim = grid_dim, block_dim

    def run(self, grid_point: tuple[int, ...], *args: Any) -> None:
        if any(grid_point):
            return
        points = list(np.ndindex(*self._grid_dim))
        self._size = size = int(np.prod(self._block_dim))
        self._blocks = {point: threading.Barrier(size, timeout=PATIENCE) for point in points}
        self._all = threading.Barrier(size * len(points), timeout=PATIENCE)
        self._met = threading.Condition()
        self._broken = False
        self._arrivals: dict[int, int] = {}
        self._warps = {
            (point, warp): Warp(min(WARP, size - warp * WARP))
            for point in points
            for warp in range(-(-size // WARP))
        }
        threads = [
            _Thread(self._guarded(args), self, point, inner, self._debug)
            for point in points
            for inner in np.ndindex(*self._block_dim)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [thread.exception for thread in threads if thread.exception]
        # Who waits for one that failed fails by that, and says less.
        errors.sort(key=lambda error: isinstance(error[0], threading.BrokenBarrierError))
        if errors:
            raise errors[0][0].with_traceback(errors[0][1])

    def _guarded(self, args: tuple[Any, ...]) -> Any:
        def run() -> None:
            try:
                self._function(*args)
                thread = threading.current_thread()
                # Another block may write into a block's memory until all have come.
                waited = getattr(thread, "phase", 0) == getattr(thread, "came", 0)
                assert waited, "a block has left a cluster whose others have not all come"
            except BaseException:
                barriers = [self._all, *self._blocks.values()]
                for barrier in barriers + [warp.barrier for warp in self._warps.values()]:
                    barrier.abort()
                with self._met:
                    self._broken = True
                    self._met.notify_all()
                raise

        return run

    def meet_block(self, block: Any) -> None:
        self._blocks[tuple(block)].wait()

    def meet_grid(self) -> None:
        self._all.wait()

    def arrive(self, met: Any, at: int) -> None:
        with self._met:
            met[at] += 1
            self._met.notify_all()

    def wait_for(self, met: Any, at: int, count: int) -> None:
        with self._met:
            opened = self._met.wait_for(lambda: self._broken or met[at] >= count, PATIENCE)
        if self._broken or not opened:
            raise threading.BrokenBarrierError

    def arrive_in_cluster(self, cluster: int, blocks: int) -> None:
        with self._met:
            self._arrivals[cluster] = self._arrivals.get(cluster, 0) + 1
            if self._arrivals[cluster] % (blocks * self._size) == 0:  # or all wake for nothing
                self._met.notify_all()

    def wait_in_cluster(self, cluster: int, blocks: int, phase: int) -> None:
        wanted = phase * blocks * self._size
        with self._met:
            opened = self._met.wait_for(
                lambda: self._broken or self._arrivals.get(cluster, 0) >= wanted, PATIENCE
            )
        if self._broken or not opened:
            raise threading.BrokenBarrierError

    def warp_of(self, thread: Any) -> "Warp":
        return self._warps[tuple(thread.blockIdx), thread.threadIdx.x // WARP]


class _GridGroup:
    def sync(self) -> None:
        threading.current_thread().meet_grid()


_OfOneBlock = kernelapi.FakeCUDAShared


class _Shared:
    """Shared memory of each block its own, and within reach of others; at first it holds NaN."""

    current: "_Shared"  # of the kernel that runs

    def __init__(self, dynshared_size: int) -> None:
        self._size = dynshared_size
        self._of_blocks: dict[int, Any] = {}
        self._lock = threading.Lock()
        _Shared.current = self

    def of(self, block: int) -> Any:
        with self._lock:
            if block not in self._of_blocks:
                own = _OfOneBlock(self._size)
                own._dynshared[:] = -1  # each float a NaN
                self._of_blocks[block] = own
        return self._of_blocks[block]

    def array(self, shape: Any, dtype: Any, alignment: Any = None) -> Any:
        return self.of(int(threading.current_thread().blockIdx.x)).array(shape, dtype, alignment)


@contextmanager
def all_blocks_at_once() -> Iterator[None]:
    """Run kernels so."""
    # A thread that waits for Python's lock asks for it after each such interval: hundreds do.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1)
    with (
        mock.patch.object(simulator, "BlockManager", _Grid),
        mock.patch.object(kernelapi, "GridGroup", _GridGroup),
        mock.patch.object(kernelapi, "FakeCUDAShared", _Shared),
    ):
        try:
            yield
        finally:
            sys.setswitchinterval(before)
