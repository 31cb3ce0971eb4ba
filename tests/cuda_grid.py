"""Grids on Numba's CUDA simulator, which runs one block at a time: here all blocks run at once.

A barrier of the grid then opens as on a GPU. Each block has shared memory of its own; memory
that is never written is NaN.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator import kernelapi

#: Seconds after which a barrier is taken for one that will never open.
PATIENCE = 60


class _Thread(simulator.BlockThread):
    """A thread that meets the others of its block, or all."""

    def syncthreads(self) -> None:
        self._manager.meet_block(self.blockIdx)

    def meet_grid(self) -> None:
        self._manager.meet_grid()


class _Grid:
    """Stands in for the manager of one block: the first runs all, and the others have nothing."""

    def __init__(self, function: Any, grid_dim: Any, block_dim: Any, debug: bool) -> None:
        self._function, self._debug = function, debug
        self._grid_dim, self._block_dim = grid_dim, block_dim

    def run(self, grid_point: tuple[int, ...], *args: Any) -> None:
        if any(grid_point):
            return
        points = list(np.ndindex(*self._grid_dim))
        size = int(np.prod(self._block_dim))
        self._blocks = {point: threading.Barrier(size, timeout=PATIENCE) for point in points}
        self._all = threading.Barrier(size * len(points), timeout=PATIENCE)
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
            except BaseException:
                for barrier in (self._all, *self._blocks.values()):
                    barrier.abort()
                raise

        return run

    def meet_block(self, block: Any) -> None:
        self._blocks[tuple(block)].wait()

    def meet_grid(self) -> None:
        self._all.wait()


class _GridGroup:
    def sync(self) -> None:
        threading.current_thread().meet_grid()


_OfOneBlock = kernelapi.FakeCUDAShared


class _Shared:
    """Shared memory of each block its own; at first it holds NaN."""

    def __init__(self, dynshared_size: int) -> None:
        self._size = dynshared_size
        self._of_blocks: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()

    def array(self, shape: Any, dtype: Any, alignment: Any = None) -> Any:
        block = tuple(threading.current_thread().blockIdx)
        with self._lock:
            if block not in self._of_blocks:
                own = _OfOneBlock(self._size)
                own._dynshared[:] = -1  # each float a NaN
                self._of_blocks[block] = own
        return self._of_blocks[block].array(shape, dtype, alignment)


@contextmanager
def all_blocks_at_once() -> Iterator[None]:
    """Run kernels so."""
    with (
        mock.patch.object(simulator, "BlockManager", _Grid),
        mock.patch.object(kernelapi, "GridGroup", _GridGroup),
        mock.patch.object(kernelapi, "FakeCUDAShared", _Shared),
    ):
        yield
