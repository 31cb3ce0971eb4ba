"""Truncated backpropagation through time: gradients as a long sequence goes on."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.embedding import Embedding
from fastrnn.models.layer import Layer
from fastrnn.models.pool import Pool
from fastrnn.models.sequential import Sequential
from fastrnn.models.tape import Gradients


@dataclass(frozen=True, eq=False)
class Window:
    """The steps of a sequence that are new, and those before them that their gradients reach.

    steps: the new ones, as a slice of time. y: what the model gives at them, laid out like x;
    state: behind the last of them.
    """

    model: Layer[Any] | Sequential = field(repr=False)
    steps: slice
    y: Array
    state: Any
    _tapes: tuple[Any, ...] = field(repr=False)
    _axis: int = field(repr=False)
    _piece: int = field(repr=False)  # steps of a tape, of the last one at most

    def backward(self, dy: Any, **clip: Any) -> dict[str, Array]:
        """The gradients of the parameters by name, of a loss of y.

        dy: gradient of y, in y's shape. clip: `clip_value` and `clip_norm`, as those of a layer's
        backward. Errors from before this window are not counted again: the steps before the new
        ones only pass gradients on. Raises TypeError or ValueError for wrong arguments.
        """
        dy = check.shaped("dy", dy, self.model.dtype, self.y.shape, "that of y", str(self.model))
        axis, piece = self._axis, self._piece
        parts = np.split(dy, range(piece, dy.shape[axis], piece), axis)
        before = np.zeros((*dy.shape[:axis], piece, *dy.shape[axis + 1 :]), dy.dtype)
        parts = [before] * (len(self._tapes) - len(parts)) + parts
        total: dict[str, Array] = {}
        d_state = None
        for tape, part in zip(reversed(self._tapes), reversed(parts), strict=True):
            found: Gradients[Any] = self.model.backward(tape, part, d_state, **clip)
            d_state = found.state
            for name, value in found.parameters.items():
                total[name] = total[name] + value if name in total else value
        return total


def truncated(
    model: Layer[Any] | Sequential,
    x: Any,
    state: Any = None,
    *,
    tbptt: tuple[int, int],
    training: bool = True,
    rng: np.random.Generator | None = None,
    lengths: Any = None,
) -> Iterator[Window]:
    """Train on a long sequence bit by bit: every k1 steps, gradients that reach back k2 steps.

        for window in fastrnn.truncated(lstm, x, tbptt=(20, 60)):
            dy = 2 * (window.y - target[window.steps])
            gradients = window.backward(dy)
            lstm.update({n: p - 0.01 * gradients[n] for n, p in lstm.parameters.items()})

    The state is carried from window to window, and each step runs forward once, with the parameters
    as they are then; so memory is that of k2 steps, however long the sequence. This is BPTT(k2; k1)
    of Williams and Peng 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of
    Recurrent Network Trajectories"; see also section 2.8.6 of Sutskever's thesis of 2013, "Training
    Recurrent Neural Networks". Where k1 and k2 are T, it is full backpropagation.

    model: a layer in one direction, or a Sequential of such. x, state: as those of its call, on the
        CPU.
    tbptt: (k1, k2), k1 at most k2; it is quickest where k2 is a multiple of k1. The last window has
        what is left of T, and reaches back as many steps as are sure to be within k2.
    training, rng: as those of its forward. lengths (B,): steps of each sequence, all if None.

    Raises TypeError or ValueError for wrong arguments.
    """
    if not isinstance(model, Layer | Sequential):
        raise TypeError(f"model is a {type(model).__name__}, wanted a layer or a Sequential")
    if not isinstance(tbptt, tuple | list) or len(tbptt) != 2:
        raise TypeError(f"tbptt is {tbptt!r}, wanted (k1, k2)")
    k1, k2 = (check.size(name, value) for name, value in zip(("k1", "k2"), tbptt, strict=True))
    if k1 > k2:
        raise ValueError(f"tbptt is ({k1}, {k2}), wanted k1 at most k2, or losses reach nobody")
    layers = [model] if isinstance(model, Layer) else [m for m in model if isinstance(m, Layer)]
    if any(layer.bidirectional for layer in layers):
        raise ValueError(f"{model!r} is bidirectional, and has no state to carry on")
    if not check.on_host(x):
        raise TypeError("x lies on a GPU, wanted a NumPy array")
    if isinstance(model, Sequential) and any(isinstance(m, Pool) for m in model):
        raise ValueError(f"{model!r} has a Pool, whose loss waits for the end of a sequence")
    tokens = isinstance(model, Sequential) and isinstance(model[0], Embedding)
    batched = np.ndim(x) == (2 if tokens else 3)
    axis = int(batched and any(layer.batch_first for layer in layers))
    if lengths is not None:
        B = np.shape(x)[1 - axis] if batched else 1
        lengths = check.lengths(np.reshape(lengths, -1), np.shape(x)[axis], B)
    return _windows(model, x, state, k1, k2, axis, training, rng, lengths)


def _windows(
    model: Layer[Any] | Sequential,
    x: Any,
    state: Any,
    k1: int,
    k2: int,
    axis: int,
    training: bool,
    rng: np.random.Generator | None,
    lengths: Array | None,
) -> Iterator[Window]:
    # Pieces that windows begin and end with: each keeps its tape until none reaches it.
    piece = math.gcd(k1, k2)
    T = np.shape(x)[axis]
    tapes: deque[Any] = deque(maxlen=k2 // piece)
    for first in range(0, T, k1):
        last = min(T, first + k1)
        ys = []
        for at in range(first, last, piece):
            steps = (slice(None),) * axis + (slice(at, min(last, at + piece)),)
            end = min(last, at + piece)
            left = None if lengths is None else np.clip(lengths - at, 0, end - at)
            y, state, tape = model.forward(
                x[steps], state, training=training, rng=rng, lengths=left
            )
            ys.append(y)
            tapes.append(tape)
        whole = ys[0] if len(ys) == 1 else np.concatenate(ys, axis)
        yield Window(model, slice(first, last), whole, state, tuple(tapes), axis, piece)
