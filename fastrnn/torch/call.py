"""One call of a module: how its tensors are laid out, and what runs it on arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fastrnn.arrays import Array
from fastrnn.models.regularised import Drawn
from fastrnn.models.stack import Call, Stack, run_backward, run_forward
from fastrnn.torch.devices import Device
from fastrnn.torch.kinds import SHORT, widths_of
from fastrnn.torch.packed import Packed, fastest
from fastrnn.torch.prepared import Packing, Prepared
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.device import Checkpoints, mask_panels
from fastrnn_kernels.gradients import NO_CLIP, Clip
from fastrnn_kernels.rows import Indices, Rows
from fastrnn_kernels.tape import ARRAYS


@dataclass(frozen=True)
class Layout:
    """Where the user's axes lie: kernels take x (T, B, I), and states (layers * D, B, width).

    into: index that adds the axes which are missing; out: index that takes them away again.
    """

    into: tuple[Any, ...] = ()
    out: tuple[Any, ...] = ()
    batch_first: bool = False


#: NumPy's types by torch's, of those that kernels take.
DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
_ALL = slice(None)
TIME_FIRST, BATCH_FIRST = Layout(), Layout(batch_first=True)
UNBATCHED = Layout((_ALL, None), (_ALL, 0))
CELL, UNBATCHED_CELL = Layout((None,), (0,)), Layout((None, None), (0, 0))


@dataclass(eq=False)
class ModuleCall:
    """What a pass has to know beside its tensors.

    Those are, in this order: x, `states` initial states, `masks` dropout masks, one in front of
    each layer but the first, the parameters; behind them, in a backward pass, the tape.
    batch_sizes: of a PackedSequence, whose data x is then, and in whose order masks are; other
    masks are time first. prepared: what runs it, if this is not its first call of a shape; its tape
    is one tensor, and x where it had to be copied. every: steps between checkpoints, of a tape that
    has no others.
    """

    mode: str  # torch's name of the cell: LSTM, GRU, RNN_TANH or RNN_RELU; or `modes.mode_of` it
    num_layers: int
    directions: int
    hidden_size: int
    state_size: int
    masks: int  # in front of layers above the first
    states: int  # 0 for zeros
    layout: Layout
    rows: Rows
    batch_sizes: Any
    packed: Packed
    device: Device
    drawn: Drawn | None = None  # in training, beside the masks
    cell: Cell | None = None  # where it is derived from the module's, with these rates per unit
    rates: Array | None = None
    bfloat16: bool = False  # whether products may be of it, without a tape, where that is fast
    packs: Any = None  # the weights that the forward pass read
    packing: Packing | None = None
    prepared: Prepared | None = None
    every: int | None = None
    clip: Clip = NO_CLIP

    def split(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """x, states, masks, parameters and tape of the tensors of a pass."""
        masks = 1 + self.states
        parameters = masks + self.masks
        tape = parameters + len(self.packed.shapes)
        return (
            tensors[0], tensors[1:masks], tensors[masks:parameters], tensors[parameters:tape],
            tensors[tape:],
        )  # fmt: skip

    def forward(self, tensors: Sequence[Any], taping: bool) -> tuple[Any, ...]:
        """y, the final states, and, if taping, the tape, as tensors."""
        x, states, masks, parameters, _ = self.split(tensors)
        with self.device.on_current_stream():
            compute = fastest(self.bfloat16 and not taping)
            prepared = None if compute else self.prepared
            inputs = taping and bool(x.requires_grad)
            packing = None if compute else self.packing
            self.packs = self.packed.packs(
                self.device, parameters, packing, taping, inputs, compute
            )
            if prepared is not None:
                return tuple(prepared.forward(self.packs, x, states, taping))
            y, final, tapes = run_forward(
                self._stack(x),
                self._arguments(x, states, x),
                self._masks(masks),
                taping=taping,
                every=self.every if taping else None,
                drawn=self.drawn,
            )
            results = [self._leave(y), *(self._tensor(state) for state in final)]
            tape = [array for one in tapes for array in _arrays(one)]
            return *results, *map(self.device.tensor, tape)

    def backward(
        self,
        d_results: Sequence[Any],
        tensors: Sequence[Any],
        inputs: bool = True,
        starts: bool = True,
    ) -> tuple[Any, ...]:
        """Gradients of the tensors but the tape, from those of the results; of masks, None.

        inputs: whether that of x is wanted; else it is None. starts: whether those of the initial
        states are; else they may be None.
        """
        x, states, masks, parameters, taped = self.split(tensors)
        with self.device.on_current_stream():
            # A transform that maps over parameters gives a forward pass for each of them.
            packs = self.packs or self.packed.packs(self.device, parameters)
            if self.prepared is not None:
                tape, x = taped[0], taped[-1] if len(taped) > 1 else x
                wanted = states if starts else ()
                dx, *rest = self.prepared.backward(packs, d_results, x, tape, inputs, wanted)
                unwanted = [] if starts else [None] * self.states
                return _of_parameters([dx, *unwanted, *rest], parameters)
            arrays = [self.device.array(one) for one in taped]
            width = len(ARRAYS) if self.every is None else _OF_CHECKPOINTS
            tapes = []
            for k, own in enumerate(self._weights(packs)):
                tapes.append(self._tape(own, k, arrays[k * width : (k + 1) * width]))
            dx, d_start, found = run_backward(
                self._stack(x),
                tapes,
                self._masks(masks),
                self._arguments(d_results[0], d_results[1:], x),
                inputs=inputs,
                clip=self.clip,
            )
            gradients = [None if dx is None else self._leave(dx)]
            gradients += map(self._tensor, d_start[: self.states])
            gradients += [None] * len(masks)
            for one in found:
                units = iter(() if one.units is None else one.units)  # rates come last, for nobody
                for kind in self.packed.kinds:
                    part = getattr(one, SHORT[kind]) if kind in SHORT else next(units)
                    gradients.append(self.device.tensor(part))
            return _of_parameters(gradients, parameters)

    def _tape(self, weights: Any, number: int, arrays: Sequence[Array]) -> Any:
        """The tape of a pass of this number, of its arrays."""
        reverse, draws = number % self.directions == 1, None
        if self.drawn is not None:
            draws = self.drawn.of_pass(number, self.rows.B, self.state_size, weights.dtype)
        if self.every is not None:
            x, start_h, start_rest, h, rest = arrays
            start = start_h, start_rest
            return Checkpoints(
                weights, self.rows, x, reverse, None, self.every, start, h, rest, draws
            )
        of_pass = dict(zip(ARRAYS, arrays, strict=True))
        make = self.device.kernels.Tape
        tape = make(weights, self.rows, reverse=reverse, reset=None, **of_pass)
        if draws is not None and draws.h_mask is not None:
            tape.h_mask = mask_panels(draws.h_mask, weights.dtype)
        return tape

    @property
    def biased(self) -> bool:
        """Whether there are biases."""
        return "bias_ih" in self.packed.kinds

    @property
    def widths(self) -> list[int]:
        """Of each state, h first."""
        return widths_of(self.packed.cell, self.state_size, self.hidden_size)

    def _weights(self, packs: Any) -> tuple[Any, ...]:
        if self.cell is None:
            found: tuple[Any, ...] = packs.weights
            return found
        assert self.rates is not None
        return self.packed.derived(packs, self.cell, self.rates)

    def _stack(self, like: Any) -> Stack:
        return Stack(
            f"this {self.mode.partition('-')[0]}",
            self.num_layers,
            self.directions,
            self.state_size,
            DTYPES[like.dtype],
        )

    def _arguments(self, x: Any, states: Sequence[Any], like: Any) -> Call:
        """The arguments of a pass as arrays; zeros for what is None."""
        weights = self._weights(self.packs) if self.packs else ()
        T, B = self.rows.T, self.rows.B
        xp, dtype = self.device.kernels.xp, DTYPES[like.dtype]
        many = self.num_layers * self.directions
        given = states or [None] * len(self.packed.cell.states)
        arrays = tuple(
            xp.zeros((many, B, width), dtype)
            if state is None
            else self.device.kernels.take(self.device.array(state)[self.layout.into])
            for state, width in zip(given, self.widths, strict=True)
        )
        if x is None:  # no loss depends on y
            entered = xp.zeros((T, B, self.directions * self.state_size), dtype)
        else:
            entered = self.device.kernels.take(self.enter(x))
        return Call(
            self.device.kernels, weights, entered, arrays, self.rows, None, True, False, True
        )

    def enter(self, tensor: Any) -> Array:
        """A tensor laid out like the input -> (T, B, width); garbage where a row has ended."""
        array = self.device.array(tensor)
        if self.batch_sizes is None:
            if self.layout.batch_first:
                return array.swapaxes(0, 1)
            entered: Array = array[self.layout.into]
            return entered
        T, B, width = self.rows.T, self.rows.B, array.shape[1]
        if not self.rows.ragged:
            return array.reshape(T, B, width)
        padded: Array = self.device.kernels.empty((T, B, width), array.dtype)
        padded.reshape(T * B, width)[self._running] = array
        return padded

    def _masks(self, tensors: Sequence[Any]) -> list[Array | None] | None:
        """The masks in front of each layer as (T, B, width), if there are any."""
        if not tensors:
            return None
        into = self.device.array if self.batch_sizes is None else self.enter
        return [None, *map(into, tensors)]

    def _leave(self, array: Array) -> Any:
        """The reverse of `enter`."""
        if self.batch_sizes is not None:
            array = array.reshape(-1, array.shape[2])
            return self.device.tensor(self._packed_rows(array) if self.rows.ragged else array)
        array = array.swapaxes(0, 1) if self.layout.batch_first else array
        return self._tensor(array)

    def _packed_rows(self, array: Array) -> Array:
        if not isinstance(array, np.ndarray):
            return array.take(self._running, axis=0)
        # Into memory that is used again: new pages would cost more than the copy.
        packed: Array = self.device.kernels.empty((self.rows.steps, array.shape[1]), array.dtype)
        return array.take(self._running, axis=0, out=packed, mode="clip")

    def _tensor(self, array: Array) -> Any:
        return self.device.tensor(array[self.layout.out])

    @cached_property
    def _running(self) -> Indices:
        """Where packed data lie among all steps of all rows: a PackedSequence is in this order."""
        running: Indices = self.device.kernels.xp.asarray(self.rows.running)
        return running


#: How many arrays `_arrays` gives of checkpoints.
_OF_CHECKPOINTS = 5


def _arrays(tape: Any) -> list[Array]:
    """What a pass keeps, as `_tape` takes it."""
    if isinstance(tape, Checkpoints):
        return [tape.x, *tape.start, tape.h, tape.rest]
    return [getattr(tape, name) for name in ARRAYS]


def _of_parameters(gradients: list[Any], parameters: Sequence[Any]) -> tuple[Any, ...]:
    """The gradients, the last of which are those of parameters, in the types of these."""
    at = len(gradients) - len(parameters)
    for k, parameter in enumerate(parameters, at):
        if gradients[k].dtype is not parameter.dtype:  # it was widened
            gradients[k] = gradients[k].to(parameter.dtype)
    return tuple(gradients)
