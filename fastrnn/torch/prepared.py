"""Passes over sequences of one shape, prepared when they come again.

What depends on sizes alone stands in recipes (`cpu/sequence/stacks.py`): what is left for a call is
to allocate its results and to hand addresses over.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fastrnn.torch.fallbacks import FLOATS
from fastrnn_kernels.cpu import device as cpu
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.arrays.take import take
from fastrnn_kernels.cpu.sequence import packs, stacks, stacks_backward
from fastrnn_kernels.cpu.sequence.packs import BACKWARD, FORWARD, INPUTS, Packs
from fastrnn_kernels.cpu.sequence.stacks import Stacked
from fastrnn_kernels.cpu.sequence.stacks_backward import Wanted

#: The most shapes that are kept for a module, those that were seen once among them.
_MOST = 16
_BYTE = np.dtype(np.uint8)


class Packing:
    """The way in which a stack's weights are packed, whatever the sequences."""

    def __init__(self, of: Stacked) -> None:
        self._of = of
        self._made: dict[Any, Any] = {}

    def pack(self, addresses: Sequence[int], backward: bool, inputs: bool) -> Packs:
        """The weights at these addresses, packed; backward, inputs: as of `packs.pack`."""
        around = (backward, inputs, *stacks.surroundings())
        made = self._made.get(around)
        if made is None:
            made = self._made[around] = packs.pack(self._of, backward, inputs)
        found: Packs = made.run(addresses)
        return found


class Prepared:
    """The passes of a stack over sequences of one shape, on tensors in the CPU's memory.

    Tensors may lack axes of one step, or of one row: what counts is where values lie. layout: that
    of the module's results; weights: the shapes of the parameters.
    """

    def __init__(self, of: Stacked, dtype: Any, layout: Any, weights: Any) -> None:
        self._of, self._dtype, self._numpy = of, dtype, np.dtype(of.dtype)
        self._batch_first: bool = layout.batch_first
        self._y = _without((of.T, of.B, of.width), layout.out)
        self._final = [_without(shape, layout.out) for shape in of.states]
        self._made: dict[Any, Any] = {}
        self._zeros = [np.zeros(shape, self._numpy) for shape in of.states]
        self._no_states = [one.__array_interface__["data"][0] for one in self._zeros]
        self._weights = [*weights]

    def forward(self, packs: Any, x: Any, states: Sequence[Any], taping: bool) -> list[Any]:
        """y and the final states; if taping, also the tape, and x where it had to be copied."""
        around = (taping, *stacks.surroundings())
        made = self._made.get(around)
        if made is None:
            made = self._made[around] = stacks.forward(self._of, taping)
        given, starts = self._time_first(x), [*map(_dense, states)]
        y, final = self._new(self._y, self._batch_first), [*map(self._new, self._final)]
        addresses = [
            given.data_ptr(),
            *([one.data_ptr() for one in starts] if starts else self._no_states),
            *packs.panels(FORWARD),
            y.data_ptr(),
            *[one.data_ptr() for one in final],
        ]
        found = [y, *final]
        if taping:
            tape = self._bytes(made.tape_bytes)
            addresses.append(tape.data_ptr())
            found += [tape] if given is x else [tape, given]
        made.recipe.run(addresses)
        return found

    @staticmethod
    def _bytes(many: int) -> Any:
        """Memory that begins on a cache line."""
        if many < memory.LEAST:
            return torch.empty(many, dtype=torch.uint8)  # torch's begins on one as well
        return torch.from_numpy(memory.empty((many,), _BYTE))

    def _time_first(self, x: Any) -> Any:
        if not self._batch_first:
            return _dense(x)
        return torch.from_numpy(take(x.resolve_neg().numpy(force=True).swapaxes(0, 1)))

    def backward(
        self,
        packs: Any,
        d_results: Sequence[Any],
        x: Any,
        tape: Any,
        inputs: bool,
        states: Sequence[Any],
    ) -> list[Any]:
        """Gradients of x, None if it is not among the wanted `inputs`, of states, of parameters."""
        of = self._of
        d_y, *d_final = d_results
        lies, d_y = _lies(d_y)
        given = any(one is not None for one in d_final)
        if given:
            d_final = [
                torch.zeros(shape, dtype=self._dtype) if one is None else _dense(one)
                for one, shape in zip(d_final, of.states, strict=True)
            ]
        wanted = Wanted(lies, given, inputs, bool(states))
        around = (wanted, *stacks.surroundings())
        made = self._made.get(around)
        if made is None:
            made = self._made[around] = stacks_backward.backward(of, wanted)
        dx = self._new(tuple(x.shape)) if inputs else None
        d_states = [self._new(tuple(one.shape)) for one in states]
        d_weights = [*map(self._new, self._weights)]
        none = [0] * of.cell.N
        through = inputs or of.num_layers > 1
        made.run(
            [
                tape.data_ptr(),
                x.data_ptr(),
                0 if d_y is None else d_y.data_ptr(),
                *([one.data_ptr() for one in d_final] if given else none),
                *packs.panels(BACKWARD),
                *(packs.panels(INPUTS) if through else [0] * of.passes),
                0 if dx is None else dx.data_ptr(),
                *([one.data_ptr() for one in d_states] if states else none),
                *[one.data_ptr() for one in d_weights],
            ]
        )
        return [dx, *d_states, *d_weights]

    def _new(self, shape: tuple[int, ...], batch_first: bool = False) -> Any:
        """A tensor that is to be written; a large one in memory that is used again.

        batch_first: with the first two axes swapped, of memory that has them as they are.
        """
        if not batch_first and math.prod(shape) * self._numpy.itemsize < memory.LEAST:
            return torch.empty(shape, dtype=self._dtype)
        array = memory.empty(shape, self._numpy)
        return torch.from_numpy(array.swapaxes(0, 1) if batch_first else array)


def prepare(call: Any, tensors: Sequence[Any]) -> None:
    """Give a module's call what is prepared for it, from the second one on of its kind."""
    x = tensors[0]
    if x.dtype not in FLOATS or call.device.kernels is not cpu:
        return
    if call.drawn is not None or call.cell is not None:
        return
    call.packing = _kept(call.packed.packing, call, x, x.dtype, _packing)
    if call.batch_sizes is None and not call.masks:
        key = x.dtype, call.rows.T, call.rows.B, id(call.layout)
        call.prepared = _kept(call.packed.prepared, call, x, key, _prepared)


def _kept(kept: dict[Any, Any], call: Any, x: Any, key: Any, make: Callable[..., Any]) -> Any:
    """What was made for a key, or is if it comes for the second time; None else."""
    found = kept.get(key, False)
    if found is False:
        if len(kept) >= _MOST:
            kept.clear()
        kept[key] = None
        return None
    if found is None:
        found = kept[key] = make(call, x) or ()
    return found or None


def _stacked(call: Any, x: Any) -> Stacked:
    kinds, dtype = call.packed.kinds, str(x.dtype).removeprefix("torch.")
    sizes = x.shape[-1], call.hidden_size, call.state_size, call.num_layers, call.directions
    return Stacked(
        call.packed.cell,
        call.rows.T,
        call.rows.B,
        *sizes,
        dtype,
        call.biased,
        "weight_hr" in kinds,
    )


def _packing(call: Any, x: Any) -> Packing | None:
    of = _stacked(call, x)
    return Packing(of) if packs.can_be(of) else None


def _prepared(call: Any, x: Any) -> Prepared | None:
    of = _stacked(call, x)
    if not stacks.can_be(of):
        return None
    return Prepared(of, x.dtype, call.layout, call.packed.shapes.values())


def _without(shape: tuple[int, ...], out: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape without the axes that an index takes away."""
    return tuple(size for n, size in enumerate(shape) if not (n < len(out) and out[n] == 0))


def _dense(tensor: Any) -> Any:
    """The tensor, or a copy, whose memory holds its values one behind the other."""
    return tensor.resolve_neg().contiguous()


def _lies(d_y: Any) -> tuple[int, Any]:
    """How the gradient of y lies, and that gradient, copied if it lies in another way."""
    if d_y is None:
        return stacks_backward.NONE, None
    d_y = d_y.resolve_neg()
    if d_y.dim() == 3 and not d_y.is_contiguous() and d_y.transpose(0, 1).is_contiguous():
        return stacks_backward.BATCH_FIRST, d_y
    return stacks_backward.TIME_FIRST, d_y.contiguous()
