"""Losses of sequences and classes that count differently."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import train
from fastrnn.arrays import Array


class Weighed:
    """A loss in which a weight counts the same in whichever batch it is.

    The losses of `fastrnn.train` divide by the sum of a batch's weights. That is right for one
    batch, but a heavy sequence among heavy ones would count no more than a light one among light
    ones: so here the gradient is multiplied by the batch's mean weight over that of all data.

    loss: what is weighed. many (N,): the targets of each sequence, 1 or its steps.
    weight (N,): of sequences, or None. of_class (C,): of classes, or None; places: the classes of
    all targets, one after the other.
    """

    def __init__(
        self, loss: train.Loss, many: Array, weight: Array | None,
        of_class: Array | None = None, places: Array | None = None,
    ) -> None:  # fmt: skip
        self.loss, self.of_class = loss, of_class
        of_sequences = np.repeat(np.ones(len(many)) if weight is None else weight, many)
        both = of_sequences if of_class is None else of_sequences * of_class[places]
        if not both.sum() > 0:
            raise ValueError("sample_weight and class_weight together are zero everywhere")
        self._mean = both.mean()
        self._of_class = both.sum() / of_sequences.sum()

    def __call__(
        self, y: Any, target: Any, *, weight: Any = None, mask: Any = None
    ) -> tuple[float, Array]:
        """As a loss of `fastrnn.train`; the mean of these over batches is that over all data."""
        shape = y.shape[:-1]
        inside = np.broadcast_to(1.0 if mask is None else mask, shape).astype(np.float64)
        of_sequences = inside * (1.0 if weight is None else weight)
        both = of_sequences if self.of_class is None else of_sequences * self.of_class[target]
        value, dy = self.loss(y, target, weight=both, mask=mask)
        total = both.sum()
        if total == 0:
            return value, dy
        told = value * float(total / of_sequences.sum() / self._of_class)
        return told, dy * dy.dtype.type(total / inside.sum() / self._mean)


def counts(rows: Sequence[Array], each_step: bool) -> Array:
    """The targets of each sequence."""
    return np.array([len(one) if each_step else 1 for one in rows])
