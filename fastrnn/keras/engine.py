"""A Keras layer's sequence through the kernels, in NumPy: what all backends share."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array, Shape
from fastrnn.device import kernels_for
from fastrnn.keras.steps import Steps
from fastrnn.keras.weights import KerasWeights, Layout, Packed
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.draws import Draws, Key
from fastrnn_kernels.tape import Tape as PassTape

States = tuple[Array, ...]  # (B, H) each, h first


@dataclass(frozen=True)
class Call:
    """How a layer runs its sequences. It can be hashed, and does not keep the layer alive.

    packed: of the layer's weights.
    sequences: the output is that of every step, else of the last.
    zeros: a masked step shows zeros, else the output before it.
    holds_start: before the first step that runs it shows the initial h, else zeros; Keras's
        backends differ in it.
    """

    cell: Cell
    layout: Layout
    packed: weakref.ref[Packed]
    go_backwards: bool = False
    sequences: bool = False
    zeros: bool = False
    holds_start: bool = False


@dataclass(frozen=True, eq=False)
class Tape:
    """A forward pass, as `backward` needs it."""

    call: Call
    taken: PassTape[Any]
    steps: Steps
    biased: bool
    h_mask: Array | None


def _require(name: str, array: Array | None, shape: Shape, dtype: np.dtype[Any]) -> None:
    if array is not None and (array.shape != shape or array.dtype != dtype):
        raise ValueError(f"{name} has shape {array.shape}, {array.dtype}, wanted {shape}, {dtype}")


def _require_states(
    of: str, cell: Cell, given: Sequence[Array | None], shape: Shape, dtype: np.dtype[Any]
) -> None:
    if len(given) != len(cell.states):
        raise ValueError(f"{of}states are {len(given)}, wanted {len(cell.states)}")
    for name, array in zip(cell.states, given, strict=True):
        _require(f"{of}state {name}", array, shape, dtype)


def _sizes(
    call: Call, x: Array, mask: Array | None, weights: KerasWeights, states: States
) -> tuple[int, int, int]:
    """B, T and H, if all fits together."""
    kernel, recurrent, bias, units, h_mask = weights
    if not x.ndim - 1 == kernel.ndim == recurrent.ndim == 2:
        raise ValueError(
            f"x, kernel and recurrent kernel have shapes {x.shape}, {kernel.shape} and "
            f"{recurrent.shape}, wanted (B, T, I), (I, G H) and (H, G H)"
        )
    B, T = x.shape[:2]
    I, H, dtype = kernel.shape[0], recurrent.shape[0], x.dtype
    cell = call.cell
    columns, columns_of_h = cell.G * H, cell.GH * H
    _require("x", x, (B, T, I), dtype)
    _require("the mask", mask, (B, T), np.dtype(np.bool_))
    _require("the kernel", kernel, (I, columns), dtype)
    _require("the recurrent kernel", recurrent, (H, columns_of_h), dtype)
    _require("the units' parameters", units, (cell.Q, H), dtype)
    _require("the bias", bias, (2, columns) if call.layout.two_biases else (columns,), dtype)
    _require("the mask of h", h_mask, (B, H), dtype)
    _require_states("", cell, states, (B, H), dtype)
    return B, T, H


def _stacked(states: Sequence[Array], shape: Shape, dtype: np.dtype[Any]) -> Array:
    """The states but h, one after the other in memory, however each lies there."""
    stacked = np.empty((len(states), *shape), dtype)
    for place, state in zip(stacked, states, strict=True):
        place[...] = state
    return stacked


def forward(
    call: Call, x: Array, mask: Array | None, weights: KerasWeights, states: States, taping: bool
) -> tuple[Array, States, Tape | None]:
    """The output, (B, T, H) or (B, H), the final states, and with `taping` the tape.

    x (B, T, I), mask (B, T) booleans or None, all floats of one type. Raises ValueError for
    other shapes or types: what frameworks trace, they know in parts only.
    """
    kernels = kernels_for("cpu")
    B, T, H = _sizes(call, x, mask, weights, states)
    dtype = x.dtype
    steps = Steps(T, B, mask, call.go_backwards)
    packed = call.packed() or Packed()  # a compiled program may outlive the layer
    start_h, *others = states
    start_rest = _stacked(others, (B, H), dtype)
    final_h, final_rest = np.empty((B, H), dtype), np.empty_like(start_rest)
    y = kernels.empty((T, B, H), dtype)
    h_mask = weights[4]
    draws = None if h_mask is None else Draws(Key(0), h_mask=h_mask)
    run = kernels.start_forward(
        packed(call.cell, call.layout, weights), kernels.take(steps.gather(x)),
        kernels.take(start_h), start_rest, final_h, final_rest, steps.rows, y, 0, taping=taping,
        draws=draws,
    )  # fmt: skip
    kernels.run([run.job], run.work)
    before = start_h if call.holds_start else np.zeros_like(start_h)
    if call.sequences:
        shown = steps.outputs(y, before, call.zeros)
    else:
        shown = steps.last(final_h, before, call.zeros)
    kept = run.tape
    tape = None if kept is None else Tape(call, kept, steps, weights[2] is not None, h_mask)
    return shown, (final_h, *final_rest), tape


def backward(
    tape: Tape,
    d_shown: Array | None,
    d_states: tuple[Array | None, ...],
    inputs: bool = True,
) -> tuple[Array | None, KerasWeights, States]:
    """The gradients of x, the weights and the initial states.

    d_shown, d_states: gradients of what `forward` gave; None for zeros. inputs: whether the
    gradient of x is wanted; else it is None. Raises ValueError for other shapes or types.
    """
    kernels = kernels_for("cpu")
    call, steps = tape.call, tape.steps
    T, B, H = steps.rows.T, steps.rows.B, tape.taken.weights.hidden_size
    dtype = tape.taken.weights.dtype
    shape = (B, T, H) if call.sequences else (B, H)
    _require("the output's gradient", d_shown, shape, dtype)
    _require_states("the gradients' ", call.cell, d_states, (B, H), dtype)
    d_h, *d_rest = (np.zeros((B, H), dtype) if d is None else d for d in d_states)
    dy, d_before = None, None
    if d_shown is not None and call.sequences:
        dy, d_before = steps.d_outputs(d_shown, call.zeros)
    elif d_shown is not None:
        d_last, d_before = steps.d_last(d_shown, call.zeros)
        d_h = d_h + d_last
    if dy is None:
        dy = np.zeros((T, B, H), dtype)
    rest = _stacked(d_rest, (B, H), dtype)
    run = kernels.start_backward(
        tape.taken, kernels.take(dy), 0, kernels.take(d_h), rest, inputs=inputs
    )
    kernels.run([run.job], run.work)
    found = run.finish(None)
    d_start = found.start_h
    if call.holds_start and d_before is not None:
        d_start = d_start + d_before
    gradients = call.layout.gradients(call.cell, found, tape.biased, tape.h_mask)
    dx = None
    if found.x is not None:
        steps.rows.clear_padding(found.x)
        dx = steps.scatter(found.x)
    return dx, gradients, (d_start, *found.start_rest)
