"""Streams on the GPU: the state and all arrays stay there, and a step is one graph."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, State
from fastrnn.streams.base import Stateful
from fastrnn.streams.source import LayerState, Source, storage_of
from fastrnn_kernels.cpu.product.storage import FULL
from fastrnn_kernels.cuda.launch.arrays import check_device, give, put, take, xp
from fastrnn_kernels.cuda.launch.launch import refuse_capture
from fastrnn_kernels.cuda.stream import Steps


class CudaStream(Stateful[State]):
    """A model on the GPU that takes one step, or a block of steps, at a time, and keeps its state.

    Made by `layer.stream(batch_size)` of a model with device="cuda". A step is a copy of the
    input and one graph replay on the current stream of CuPy's; steps on several of these have
    to be ordered by whoever makes them. Arrays on the GPU are taken and given without waiting;
    NumPy's are copied, and waited for. Step by step or in blocks, outputs are the same bit for
    bit. One stream serves one thread at a time, and refuses a second.
    """

    _on_gpu = True

    def __init__(
        self, model: Source[State], batch_size: int = 1, *, weights: str | None = None
    ) -> None:
        """As `model.stream(batch_size, weights=weights)`."""
        self._set_up_rows(model, batch_size)
        self.weights = str(self.dtype)
        if weights is not None and storage_of(model, weights) != FULL:
            raise ValueError(
                f"weights is {weights!r}, a stream on the GPU has them in full: {self.weights!r}"
            )
        self._busy = threading.Lock()
        check_device()
        self._steps, self._begun = self._made()
        self.reset()
        self.input_size, self.output_size = self._steps.x.shape[1], self._steps.y.shape[1]

    def _made(self) -> tuple[Steps, Sequence[LayerState]]:
        """The steps of the model's parameters as they are now, and the states to begin from."""
        begun = self.model._split_layers("state", None, self.batch_size)
        return Steps(self.model._layers(), self.batch_size), begun

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        if self._busy.locked():
            raise RuntimeError(
                "another thread is using this stream: one stream serves one thread at a time"
            )
        # Asked before it is taken, as `with` alone lets go of it whatever a signal's handler
        # raises: who comes just then waits for a step, and is not refused.
        with self._busy:
            check_device()
            refuse_capture()
            steps = self._steps
            try:
                yield
            finally:
                steps.note()

    def _states(self) -> Sequence[LayerState]:
        return self._steps.states

    def _starts(self) -> Sequence[LayerState]:
        return self._begun

    def _put(self, own: Array, new: Any) -> None:
        put(own, new)

    def _host(self, own: Array) -> Array:
        copied: Array = own.copy() if isinstance(own, np.ndarray) else xp.asnumpy(own)
        return copied

    def _rows(self, rows: Any) -> Any:
        if rows is not None and not isinstance(rows, int):
            found = check.array("rows", rows)
            rows = found if isinstance(found, np.ndarray) else found.get()  # looked at here
        chosen = super()._rows(rows)
        return chosen if isinstance(chosen, slice) else take(chosen)

    def step(self, x: Any, out: Any = None, copy: bool | None = None) -> Any:
        """One step.

        x (B, I), or (I,) of a stream of batch size 1: the input, in the stream's float type.
        out: takes the output, in place of the stream's own array; on the GPU if x is, else
        NumPy's; C-contiguous.
        copy: True returns a new array, to keep.

        Returns the output (B, O), or (O,): of an input on the GPU the same array each time,
        valid until the next call, unless `copy` is True. Raises TypeError or ValueError for wrong
        arguments, RuntimeError if another thread is just using the stream, or if the current CUDA
        stream is being captured; its state is as before then.
        """
        copied = self._copies(copy, out)
        given = self._checked_input(x, time=False)
        host = isinstance(given, np.ndarray)
        shape = (*given.shape[:-1], self.output_size)
        if out is not None:
            self._check_out(out, shape, host)
        steps = self._steps
        with self._in_use():
            put(steps.x, given.reshape(steps.x.shape))
            steps.graph.run()
            if out is None:
                y = steps.y.copy() if copied and not host else steps.y  # else it is copied anyway
                return give(y, host).reshape(shape)
            _write(out, steps.y.reshape(shape))
        return out

    def block(self, X: Any, out: Any = None) -> Any:
        """Some steps.

        X (T, B, I), or (T, I) of a stream of batch size 1; out: takes the outputs (T, B, O),
        or (T, O); on the GPU if X is, else NumPy's; C-contiguous.

        Returns the outputs, a new array if `out` is None. Raises as `step`.
        """
        given = self._checked_input(X, time=True)
        host = isinstance(given, np.ndarray)
        shape = (*given.shape[:-1], self.output_size)
        if out is not None:
            self._check_out(out, shape, host)
        steps, T = self._steps, given.shape[0]
        with self._in_use():
            x = take(given).reshape(T, *steps.x.shape)
            y = xp.empty((T, *steps.y.shape), self.dtype)
            for t in range(T):
                put(steps.x, x[t])
                steps.graph.run()
                put(y[t], steps.y)
            y = y.reshape(shape)
            if out is None:
                return give(y, host)
            _write(out, y)
        return out

    def _check_out(self, out: Any, shape: tuple[int, ...], host: bool) -> None:
        wanted = np.ndarray if host else xp.ndarray
        if not isinstance(out, wanted):
            kind = "a NumPy array" if host else "a CuPy array"
            raise TypeError(f"out is a {type(out).__name__}, wanted {kind}, as the input is")
        check.shaped("out", out, self.dtype, shape, "the output's", "this stream")
        if not out.flags.c_contiguous or (host and not out.flags.carray):
            raise ValueError("out is not C-contiguous, aligned and writeable, as it has to be")

    def refresh(self) -> None:
        """Take up the model's parameters as they are now; the state stays."""
        self._check_model()
        fresh, begun = self._made()
        with self._in_use():
            for new, old in zip(fresh.states, self._steps.states, strict=True):
                for mine, its in zip(new, old, strict=True):
                    put(mine, its)
            self._steps, self._begun = fresh, begun
            self._take_parameters()

    def warmup(self) -> None:
        """Compile, or load, whatever a call may need; nothing of this stream changes."""
        twin = CudaStream(self.model, self.batch_size)
        twin.step(twin._steps.x)
        with self._in_use():
            self._steps.graph.record()

    def _for_the_cpu(self, name: str) -> NoReturn:
        raise RuntimeError(
            f"a stream on the GPU has no {name}: its state is not in the memory of compiled CPU "
            "code. fastrnn.cuda has its equations for kernels of your own"
        )

    @property
    def handle(self) -> Any:
        """Raises RuntimeError: only streams on the CPU have one."""
        self._for_the_cpu("handle")

    @property
    def cfunc(self) -> Any:
        """Raises RuntimeError: only streams on the CPU have one."""
        self._for_the_cpu("cfunc")

    @property
    def address(self) -> int:
        """Raises RuntimeError: only streams on the CPU have one."""
        self._for_the_cpu("address")


def _write(out: Any, y: Array) -> None:
    """A result on the GPU into a caller's array, there or of NumPy's."""
    if isinstance(out, np.ndarray) and not isinstance(y, np.ndarray):
        y.get(out=out)
    else:
        put(out, y)
