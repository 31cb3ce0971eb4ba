"""Dropout as a module: values set to zero while a model is trained."""

from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.part import Part, Ragged
from fastrnn.models.tape import Gradients
from fastrnn_kernels.cpu.device import Stage


class Dropout(Part):
    """Set values to zero with probability p in training, and divide the others by 1 - p.

    In inference, in streams and in exported code it does nothing. Srivastava et al. 2014, "Dropout:
    A simple way to prevent neural networks from overfitting".

    p: the probability. variational: one mask for all steps of a sequence (Gal and Ghahramani 2016,
    "A theoretically grounded application of dropout in recurrent neural networks", section 4).
    """

    kind = "Dropout"

    def __init__(
        self,
        p: float = 0.5,
        variational: bool = False,
        *,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(p=p, variational=variational, device=device, dtype=dtype)
        self._draw(seed)

    def _configure(self, *, p: float, variational: bool, device: str, dtype: Any) -> None:
        self.p, self.variational = check.probability("p", p), check.flag("variational", variational)
        self._set_up(device, dtype)
        self._shapes = {}

    @property
    def _fan(self) -> int:
        return 1

    def __call__(self, x: Any) -> Array:
        """x itself: this is inference."""
        return check.floats("input", x, self.dtype, self._owner)

    def _run(self, x: Any, ragged: Ragged) -> Array:
        return self(x)

    def _run_taped(
        self, x: Any, ragged: Ragged, training: bool, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        given = self(x)
        if not training or self.p == 0:
            return given, None
        generator = self._dropout_generator() if rng is None else rng
        shape = [*given.shape]
        if self.variational and ragged.timed:
            shape[ragged.axis] = 1
        mask = np.zeros(shape, self.dtype)
        if self.p < 1:
            kept = generator.random(shape, np.float32) >= self.p
            mask = kept * self.dtype.type(1 / (1 - self.p))
        return given * mask, mask

    def _back(self, kept: Any, dy: Array) -> Gradients[tuple[()]]:
        return Gradients(dy if kept is None else dy * kept, (), {})

    def tape_bytes(self, T: int, B: int) -> int:
        """Bytes of the mask, for one value of each step; of more it is so many times as much."""
        return T * B * self.dtype.itemsize

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        return []
