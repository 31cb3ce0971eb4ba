"""Pooling over time: one vector of a whole sequence."""

from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.part import Part, Ragged
from fastrnn.models.tape import Gradients
from fastrnn_kernels.cpu.device import Stage


class Pool(Part):
    """One vector of each sequence: that of its last step, or the mean or the largest of all steps.

        model = fastrnn.Sequential(fastrnn.GRU(8, 64), fastrnn.Pool("last"), fastrnn.Linear(64, 3))
        y, states = model(x, lengths=lengths)   # x (T, B, 8), y (B, 3)

    how: "last", "mean" or "max". Steps past a sequence's length count for nothing; a sequence of
    no steps gives zeros. Behind a bidirectional layer "last" takes of the reverse direction what
    it ended with, which is at the first step.
    """

    kind = "Pool"
    pools = True

    def __init__(
        self,
        how: str = "last",
        *,
        device: str = "auto",
        dtype: Any = "float32",
    ) -> None:
        self._configure(how=how, device=device, dtype=dtype)
        self._draw(0)

    def _configure(self, *, how: str, device: str, dtype: Any) -> None:
        self.how = check.choice("how", how, ("last", "mean", "max"))
        self._set_up(device, dtype)
        self._shapes = {}

    @property
    def _fan(self) -> int:
        return 1

    def _run(self, x: Any, ragged: Ragged) -> Array:
        return self._run_taped(x, ragged, False, None)[0]

    def _run_taped(
        self, x: Any, ragged: Ragged, training: bool, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        given = check.floats("input", x, self.dtype, self._owner)
        if given.ndim not in (2, 3):
            raise ValueError(f"input has shape {given.shape}, wanted sequences of vectors")
        whole = given[:, None] if given.ndim == 2 else given
        reverse = ragged.reverse
        ragged = Ragged(0 if given.ndim == 2 else ragged.axis, ragged.lengths)
        inside, axis = ragged.inside(whole.shape), ragged.axis
        steps = inside.sum(axis, keepdims=True)  # of each sequence
        if self.how == "mean":
            share = inside / np.maximum(1, steps)
            kept: Any = share.astype(self.dtype)
            y = (np.where(inside, whole, 0) * kept).sum(axis)
        elif self.how == "last":
            T = whole.shape[axis]
            shape = [1, 1, 1]
            shape[axis] = T
            kept = inside & (np.arange(T).reshape(shape) == steps - 1)
            kept = np.broadcast_to(kept, whole.shape)
            if reverse:
                first = inside & (np.arange(T).reshape(shape) == 0)
                forward = np.arange(whole.shape[-1]) < whole.shape[-1] - reverse
                kept = np.where(forward, kept, first)
            y = np.where(kept, whole, 0).sum(axis)
        else:
            least = np.where(inside, whole, -np.inf).astype(self.dtype)
            if not whole.shape[axis]:
                y, kept = np.zeros((whole.shape[1 - axis], whole.shape[-1]), self.dtype), inside
            else:
                at = least.argmax(axis)
                y = np.take_along_axis(least, np.expand_dims(at, axis), axis).squeeze(axis)
                some = steps.squeeze(axis) > 0
                y = np.where(some, y, 0).astype(self.dtype)
                shape = [1, 1, 1]
                shape[axis] = whole.shape[axis]
                kept = np.arange(whole.shape[axis]).reshape(shape) == np.expand_dims(at, axis)
                kept = kept & inside
        unbatched = given.ndim == 2
        return (y[0] if unbatched else y), (kept, whole.shape, axis, unbatched)

    def _back(self, kept: Any, dy: Array) -> Gradients[tuple[()]]:
        shares, shape, axis, unbatched = kept
        spread = np.expand_dims(dy[None] if unbatched else dy, axis)
        dx = np.zeros(shape, self.dtype)
        dx += shares * spread
        return Gradients(dx[:, 0] if unbatched else dx, (), {})

    def tape_bytes(self, T: int, B: int) -> int:
        """Bytes of what is kept, for one value of each step; of more so many times as much."""
        return T * B * self.dtype.itemsize

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        if self.how != "last":
            raise ValueError(
                f"{self._owner} takes the {self.how} of a whole sequence, which a stream does not "
                'see the end of: wanted Pool("last")'
            )
        return []  # each step of a stream is the last one so far
