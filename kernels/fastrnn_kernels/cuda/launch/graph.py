"""Calls that are recorded once, and replayed by one call."""

import weakref
from collections.abc import Callable
from typing import Any

from numba import config

from fastrnn_kernels.cuda.launch.blas import cublas, workspace
from fastrnn_kernels.cuda.launch.errors import LaunchError
from fastrnn_kernels.cuda.launch.launch import caller_key, recording

#: Captures that may fail in a row: another thread can have one fail by waiting for the device.
ATTEMPTS = 3


class Graph:
    """Launches and products on arrays that stay where they are, as one CUDA graph.

    The first run makes the calls themselves, which compiles and loads what they need; the
    second records them. Where that is refused, as another thread's doing may have it, the next
    runs try again; after `ATTEMPTS` in a row they are made one by one ever after, and `refusal`
    says why. Recorded for one stream of the caller's, and anew where another runs it. On the
    simulator a recording is the list of the calls.
    """

    def __init__(self, calls: Callable[[], None], name: str) -> None:
        """`calls` makes them, allocates nothing, and waits for nothing; errors tell the name."""
        self._calls, self._name = calls, name
        self._warm = False
        self._replay: Callable[[int], None] | None = None  # on a stream
        self._key: Any = None
        self._failures = 0
        self.refusal: Exception | None = None

    @property
    def recorded(self) -> bool:
        """Whether runs replay a recording."""
        return self._replay is not None

    def record(self) -> None:
        """Record the calls for the caller's stream, whose kernels have to be loaded."""
        self._replay = self._key = None
        if not config.ENABLE_CUDASIM and cublas() is None:
            self.refusal = RuntimeError(
                "cuBLAS was not found, or does not work: CuPy's products cannot be recorded"
            )
            return
        try:
            self._replay = _listed(self._calls) if config.ENABLE_CUDASIM else self._captured()
        except Exception as error:
            self._failures += 1
            if self._failures >= ATTEMPTS:
                self.refusal = error
            return
        self._key, self._warm, self._failures = caller_key(), True, 0

    def run(self) -> None:
        """Make the calls on the caller's stream. Raises RuntimeError where the GPU fails."""
        key = caller_key()
        if self._warm and self.refusal is None and self._key != key:
            self.record()
        if self._replay is None:
            self._calls()
            self._warm = True
        else:
            self._replay(key[0])

    def _captured(self) -> Callable[[int], None]:
        from cuda.bindings import driver

        self._workspace = workspace()  # that of the stream on which this will run
        name, modes = self._name, driver.CUstreamCaptureMode
        alone = driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        stream = _checked(driver.cuStreamCreate(alone), name)
        try:
            # In this mode other threads, and libraries' first calls, may allocate meanwhile. Who
            # waits for the whole device meanwhile fails, and has the capture fail.
            mode = modes.CU_STREAM_CAPTURE_MODE_RELAXED
            _checked(driver.cuStreamBeginCapture(stream, mode), name)
            recording.stream = int(stream)
            try:
                self._calls()
            finally:
                recording.stream = None
                status, graph = driver.cuStreamEndCapture(stream)
            _checked((status,), name)
            try:
                executable = _checked(driver.cuGraphInstantiate(graph, 0), name)
            finally:
                driver.cuGraphDestroy(graph)
        finally:
            driver.cuStreamDestroy(stream)
        made = _Executable(executable)
        return lambda stream: _checked(driver.cuGraphLaunch(made.handle, stream), name)


class _Executable:
    """A graph that can be launched; one that runs yet is freed when it has ended."""

    def __init__(self, handle: Any) -> None:
        from cuda.bindings import driver

        self.handle = handle
        # Not at the interpreter's end, where the driver may be gone.
        weakref.finalize(self, driver.cuGraphExecDestroy, handle).atexit = False


def _checked(result: tuple[Any, ...], name: str) -> Any:
    status, *values = result
    if status != type(status).CUDA_SUCCESS:
        raise LaunchError(f"the CUDA graph of {name} failed: {status.name}")
    return values[0] if values else None


def _listed(calls: Callable[[], None]) -> Callable[[int], None]:
    found: list[Callable[[], None]] = []
    recording.calls = found
    try:
        calls()
    finally:
        recording.calls = None

    def replay(stream: int) -> None:
        for call in found:
            call()

    return replay
