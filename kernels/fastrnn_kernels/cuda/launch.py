"""Launches of kernels, on the caller's stream."""

from typing import Any

import numpy as np
from numba import config

from fastrnn_kernels.cuda.arrays import xp
from fastrnn_kernels.cuda.kernel import BLOCK, Kernel


def stream() -> int:
    """The address of the caller's stream."""
    return int(xp.cuda.get_current_stream().ptr)


def launch(kernel: Kernel, count: int, *arguments: Any) -> None:
    """Run a kernel of a thread to a unit; arguments as `launch_blocks` takes them."""
    launch_blocks(kernel, -(-count // BLOCK), BLOCK, 0, *arguments)


def launch_blocks(
    kernel: Kernel,
    blocks: int,
    threads: int,
    shared_bytes: int,
    *arguments: Any,
    cooperative: bool = False,
    cluster: int = 1,
) -> None:
    """Run a kernel; none if `blocks` is 0.

    arguments: C-contiguous arrays of any shape, which kernels know as flat; None for one that
    it does not read; then integers and booleans. `cooperative`, all blocks run at once, and
    may wait for each other (a kernel with a barrier of the grid does so unasked); so many
    neighbours of a `cluster` may reach each other's shared memory.

    Raises LaunchError, naming kernel and sizes, where the driver refuses; TooManyBlocksError
    if not all blocks can run at once. Nothing has run then.
    """
    if blocks == 0:
        return
    if config.ENABLE_CUDASIM:
        kernel.compiled[blocks, threads, 0, shared_bytes](*map(_simulated, arguments))
    else:
        kernel.compiled.launch(
            blocks, threads, shared_bytes, stream(), arguments, cooperative, cluster
        )


def _simulated(argument: Any) -> Any:
    """An argument as a kernel on the simulator takes it: a view with one axis of an array."""
    if not isinstance(argument, np.ndarray):
        return argument
    if not argument.flags.c_contiguous:
        raise ValueError(f"an array of strides {argument.strides} reached a kernel")
    return argument.reshape(-1)
