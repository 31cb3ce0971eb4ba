"""Streams: a model one step at a time, its state kept between the calls."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, State
from fastrnn.jit import Handle
from fastrnn.streams.base import Stateful
from fastrnn.streams.source import LayerState, Source, storage_of
from fastrnn_kernels.cpu import device as cpu
from fastrnn_kernels.cpu.device import Program
from fastrnn_kernels.cpu.product.storage import FULL
from fastrnn_kernels.cpu.stream.entry import step_address
from fastrnn_kernels.cpu.stream.steps import Steps, Use, members_for


class CFunction:
    """A C function `int step(void *state, const T *x, T *y)`, T the stream's float type.

    x is (B, I) and y (B, O), contiguous; `state` is the `address` of a stream. It returns 0,
    or 1 if one of them is NULL.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.address = step_address()
        self._dtype = dtype

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied: it is an address of this process."""
        raise TypeError("a stream's cfunc cannot be pickled or copied, as it is an address")

    @property
    def ctypes(self) -> Any:
        """The function for ctypes, which takes addresses, or pointers to its numbers."""
        number = ctypes.c_float if self._dtype == np.float32 else ctypes.c_double
        pointer = ctypes.POINTER(number)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, pointer, pointer)
        return kind(self.address)


class Stream(Stateful[State]):
    """A model that takes one step, or a block of steps, at a time, and keeps its state.

    Made by `layer.stream(batch_size)`. Step by step or in blocks of any sizes, its outputs
    are the same bit for bit; denormal numbers count as zeros. Threads may have a stream each
    over one model; one stream serves one thread at a time, and refuses a second. A child that is
    forked in the middle of another thread's step may find that stream's state half changed:
    it has to reset or restore it.

    Attributes:
        model: what it was made from.
        batch_size, input_size, output_size: B, I, O.
        dtype: the float type of all its arrays.
        weights: how its weights are stored.
    """

    def __init__(
        self, model: Source[State], batch_size: int = 1, *, weights: str | None = None
    ) -> None:
        """As `model.stream(batch_size, weights=weights)`."""
        self._set_up_rows(model, batch_size)
        B = self.batch_size
        self._storage = storage_of(model, weights)
        self.weights = str(self.dtype) if self._storage == FULL else self._storage
        work = sum(stage.work for stage, _ in model._stages(B, self._storage))
        self._members = members_for(work)
        program, starts, self._parameters = self._made()
        self.input_size = program.stages[0].I
        self.output_size = O = program.stages[-1].out_size
        self._steps = Steps(program, self._members, starts)
        self._fast: Callable[[Any, Any], bool | None] = self._steps.step
        self._y = np.zeros((O,) if B == 1 else (B, O), self.dtype)
        self._y_row = self._y.reshape(B, O)

    def _made(self) -> tuple[Program, Sequence[LayerState], Mapping[str, Array]]:
        """The program of the model's parameters as they are now, how it begins, and these."""
        while True:  # until no other thread changes them meanwhile
            before = self.model.parameters
            stages = self.model._stages(self.batch_size, self._storage)
            starts = self.model._split_layers("state", None, self.batch_size)
            after = self.model.parameters
            if all(before[name] is value for name, value in after.items()):
                return Program.of(stages, self._members > 1), starts, before

    def _in_use(self) -> Use:
        return self._steps.in_use()

    def _states(self) -> Sequence[LayerState]:
        return self._steps.states

    def _starts(self) -> Sequence[LayerState]:
        return self._steps.starts

    def step(self, x: Any, out: Array | None = None, copy: bool | None = None) -> Array:
        """One step.

        x (B, I), or (I,) of a stream of batch size 1: the input, in the stream's float type.
        out: takes the output, in place of the stream's own array; C-contiguous.
        copy: True returns a new array, to keep.

        Returns the output (B, O), or (O,), which is the same array each time unless `copy` is
        True: it is valid until the next call, and `[stream.step(x) for x in X]` holds one array
        many times. Raises TypeError or ValueError for wrong arguments, RuntimeError if another
        thread is just using the stream; its state is as before then.
        """
        if copy is not None:
            return self.step(x).copy() if self._copies(copy, out) else self.step(x, out)
        y = self._y if out is None else out
        fast = self._fast  # in a line of its own: found 5 ns sooner than by `self._fast(x, y)`
        done = fast(x, y)
        if done:
            return y
        return self._shared(x, y) if done is None else self._step(x, out)

    def _shared(self, x: Array, y: Array) -> Array:
        """A step that several threads share, of arrays that were found good."""
        self._steps.run_shared(x, y)
        return y

    def _step(self, x: Any, out: Any) -> Array:
        """A step of what is not laid out as compiled code takes it."""
        B, O = self.batch_size, self.output_size
        given = self._checked_input(x, time=False)
        if out is None and given.ndim > self._y.ndim:
            done = self._fast(x, self._y_row)
            if done is not False:
                return self._y_row if done else self._shared(x, self._y_row)
        shape = (O,) if given.ndim == 1 else (B, O)
        y = self._y.reshape(shape) if out is None else self._checked_out(out, shape)
        self._steps.run(cpu.take(given), y, 1)
        return y

    def block(self, X: Any, out: Array | None = None) -> Array:
        """Some steps, all of them without Python's lock.

        X (T, B, I), or (T, I) of a stream of batch size 1; out: takes the outputs (T, B, O),
        or (T, O); C-contiguous.

        Returns the outputs, a new array if `out` is None. Raises as `step`.
        """
        B, I, O = self.batch_size, self.input_size, self.output_size
        given = self._checked_input(X, time=True)
        T = given.shape[0]
        shape = (T, O) if given.ndim == 2 else (T, B, O)
        y = np.empty(shape, self.dtype) if out is None else self._checked_out(out, shape)
        x = cpu.take(given)
        same = x.ctypes.data == y.ctypes.data and O <= I  # outputs stay behind the inputs
        if out is not None and not same and np.may_share_memory(x, y):
            x = x.copy()  # outputs would overwrite inputs yet to come
        self._steps.run(x, y, T)
        return y

    def _checked_out(self, out: Any, shape: tuple[int, ...]) -> Array:
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out is a {type(out).__name__}, wanted a NumPy array")
        check.shaped("out", out, self.dtype, shape, "the output's", "this stream")
        if not out.flags.carray:
            raise ValueError("out is not C-contiguous, aligned and writeable, as it has to be")
        return out

    def refresh(self) -> None:
        """Take up the model's parameters as they are now; the state stays."""
        self._check_model()
        program, starts, parameters = self._made()
        with self._in_use():
            self._steps.use(program, starts)
            self._parameters, self._model = parameters, None

    def warmup(self) -> None:
        """Compile, or load, whatever a call may need; the state stays.

        Steps run the code for this stream's own sizes from then on, if they did not yet.
        """
        self._steps.program.specialise()
        cpu.prepare_threads()
        twin = Stream(self.model, self.batch_size, weights=self.weights)
        zeros = np.zeros((1, self.batch_size, self.input_size), self.dtype)
        twin.step(zeros[0], np.empty((self.batch_size, self.output_size), self.dtype))
        twin.block(zeros)

    @property
    def specialised(self) -> bool:
        """Whether steps run code compiled for this stream's own sizes.

        Until that is compiled, by a process in the background, they may run code for any sizes; the
        outputs have the same bits. `warmup` has it compiled at once.
        """
        return self._steps.program.specialised

    @property
    def handle(self) -> Handle:
        """For `fastrnn.jit`: this stream as compiled code takes it, as an argument.

        It outlives the stream, and is neither copied nor pickled, as it holds addresses.
        """
        return Handle(self._steps.words, self._steps.memory, self._steps.start)

    @property
    def cfunc(self) -> CFunction:
        """One step as a C function; its first argument is this stream's `address`."""
        return CFunction(self.dtype)

    @property
    def address(self) -> int:
        """What `cfunc` takes as its state: valid as long as this stream, or a handle of it."""
        return self._steps.address
