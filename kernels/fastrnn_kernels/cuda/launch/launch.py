"""Launches of kernels: on the caller's stream, or into a graph that is being recorded."""

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import config

from fastrnn_kernels.cuda.launch.arrays import xp
from fastrnn_kernels.cuda.launch.kernel import BLOCK, Kernel


class _Recording(threading.local):
    """Where this thread's calls go, if not to the caller's stream."""

    stream: int | None = None  # one in capture mode
    calls: list[Callable[[], None]] | None = None  # on the simulator


recording = _Recording()


def caller() -> int:
    """The address of the caller's stream; 0 on the simulator, which has none."""
    return 0 if config.ENABLE_CUDASIM else int(xp.cuda.get_current_stream().ptr)


def caller_key() -> tuple[int, int]:
    """What tells the caller's stream from others: calls of one key run one after the other."""
    address = caller()
    # 2 is the driver's word for a stream that each thread has of its own.
    return address, threading.get_ident() if address == 2 else 0


def refuse_capture() -> None:
    """Raise RuntimeError where another library records what the caller's stream is given.

    Its replays would read and write memory that is others' by then, and what a call does once,
    as to fill a table or to copy weights, is not to be done again.
    """
    if config.ENABLE_CUDASIM:
        return
    from cuda.bindings import driver

    status, *found = driver.cuStreamIsCapturing(caller())
    none = driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
    # Of the default stream it is an error if any stream that waits for that one is recorded.
    implied = status == driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
    if implied or (status == driver.CUresult.CUDA_SUCCESS and found[0] != none):
        raise RuntimeError(
            "the current stream is being captured into a CUDA graph: fastrnn's calls cannot be "
            "part of another's capture, make them outside of it (fastrnn records its own steps)"
        )


class Readers:
    """Streams that read arrays of another's, which are not to be freed before these are done.

    Memory goes back to the stream on which it was allocated, whose next call may be given it.
    """

    def __init__(self, owner: Any) -> None:
        """`owner` holds the arrays, which were allocated on the caller's stream."""
        self._maker = caller_key()
        self._events: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()
        # Not at the interpreter's end, where the driver may be gone.
        weakref.finalize(owner, _wait_for, self._events).atexit = False

    def note(self) -> None:
        """What the caller's stream was given so far may read them."""
        key = caller_key()
        if key == self._maker:
            return
        with self._lock:
            event = self._events.get(key)
            if event is None:
                for other in [other for other, last in self._events.items() if last.done]:
                    del self._events[other]
                event = self._events[key] = xp.cuda.Event(block=True, disable_timing=True)
            event.record()


def _wait_for(events: dict[Any, Any]) -> None:
    for event in events.values():
        event.synchronize()


def stream() -> int:
    """The address of the stream that calls go to."""
    return caller() if recording.stream is None else recording.stream


def simulate(call: Callable[[], None]) -> None:
    """Make a call on the simulator, or keep it for a graph."""
    if recording.calls is None:
        call()
    else:
        recording.calls.append(call)


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
        simulate(partial(_simulated, kernel, (blocks, threads, 0, shared_bytes), arguments))
    else:
        kernel.compiled.launch(
            blocks, threads, shared_bytes, stream(), arguments, cooperative, cluster
        )


def _simulated(kernel: Kernel, shape: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
    kernel.compiled[shape](*map(flat_view, arguments))


def flat_view(argument: Any) -> Any:
    """An argument as a kernel on the simulator takes it: a view with one axis of an array."""
    if not isinstance(argument, np.ndarray):
        return argument
    if not argument.flags.c_contiguous:
        raise ValueError(f"an array of strides {argument.strides} reached a kernel")
    return argument.reshape(-1)
