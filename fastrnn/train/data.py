"""Sequences as batches: shuffled, sorted by length so that little is padded, and padded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array

#: Batches whose sequences are sorted by length together: enough for little padding, and few enough
#: that an epoch's order stays a matter of chance.
_SORTED = 32


@dataclass(frozen=True, eq=False)
class Batch:
    """Some sequences, padded.

    x (T, B, ...), targets and weight as the data have them, sequences' own with time first too.
    lengths (B,), or None where all have T steps.
    """

    x: Array
    target: Array
    lengths: Array | None
    weight: Array | None

    @property
    def steps(self) -> int:
        """The steps of all sequences, padding not counted."""
        T, B = self.x.shape[:2]
        return T * B if self.lengths is None else int(self.lengths.sum())


class Data:
    """Checked sequences with their targets.

    inputs: an array (N, T, I), tokens (N, T), or a sequence of N arrays (T_i, I) or (T_i,).
    targets: the same with a row for each step, or a row for each sequence, (N, ...).
    weight: (N,), how much each sequence counts, or None.
    """

    def __init__(self, name: str, given: Any, dtype: np.dtype[Any], tokens: bool) -> None:
        if isinstance(given, Data):
            raise TypeError(f"{name} is checked already")
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise TypeError(
                f"{name} is {type(given).__name__}, wanted (inputs, targets) or "
                "(inputs, targets, weight)"
            )
        self.name, self.dtype = name, dtype
        inputs, targets, *weight = given
        self.x = _rows(f"{name}'s inputs", inputs)
        if not len(self.x):
            raise ValueError(f"{name} has no sequences")
        axes = 1 if tokens else 2
        for k, one in enumerate(self.x):
            if one.ndim != axes:
                wanted = "(T,) of tokens" if tokens else "(T, I)"
                raise ValueError(f"sequence {k} of {name} has shape {one.shape}, wanted {wanted}")
            if not len(one):
                raise ValueError(f"sequence {k} of {name} has no steps: leave it out")
            if not tokens:
                if one.shape[1] != self.x[0].shape[1]:
                    raise ValueError(
                        f"sequence {k} of {name} has {one.shape[1]} values a step, sequence 0 has "
                        f"{self.x[0].shape[1]}"
                    )
                if one.dtype != dtype:
                    raise TypeError(
                        f"sequence {k} of {name} has dtype {one.dtype}, the model takes {dtype}: "
                        f"convert the inputs with .astype(np.{dtype})"
                    )
                if not np.isfinite(one).all():
                    raise ValueError(
                        f"sequence {k} of {name} holds NaN or infinity: padding is left out, and "
                        "what is missing is filled in before training"
                    )
        self.lengths = np.array([len(one) for one in self.x])
        self.targets = _rows(f"{name}'s targets", targets)
        if len(self.targets) != len(self.x):
            raise ValueError(f"{name} has {len(self.x)} sequences and {len(self.targets)} targets")
        self.weight: Array | None = None
        if weight and weight[0] is not None:
            self.weight = check.array(f"{name}'s weight", weight[0]).astype(np.float64)
            if self.weight.shape != (len(self.x),):
                raise ValueError(
                    f"{name}'s weight has shape {self.weight.shape}, wanted ({len(self.x)},)"
                )

    def __len__(self) -> int:
        return len(self.x)

    def check_each_step(self) -> None:
        """Raise ValueError where there is not a target for each step."""
        for k, (x, target) in enumerate(zip(self.x, self.targets, strict=True)):
            if np.ndim(target) < 1 or len(target) != len(x):
                raise ValueError(
                    f"sequence {k} of {self.name} has {len(x)} steps and a target of shape "
                    f"{np.shape(target)}, wanted one for each step; for one of a whole sequence "
                    "put a Pool in the model"
                )

    def order(self, batch_size: int, rng: np.random.Generator | None) -> list[Array]:
        """Which sequences make which batch; in the order of the data if rng is None."""
        numbers = np.arange(len(self))
        if rng is None:
            return np.split(numbers, range(batch_size, len(self), batch_size))
        rng.shuffle(numbers)
        if self.lengths.min() == self.lengths.max():
            return np.split(numbers, range(batch_size, len(self), batch_size))
        found: list[Array] = []
        chunk = batch_size * _SORTED
        for some in np.split(numbers, range(chunk, len(self), chunk)):
            some = some[np.argsort(self.lengths[some], kind="stable")]
            found += np.split(some, range(batch_size, len(some), batch_size))
        return [found[k] for k in rng.permutation(len(found))]

    def batch(self, numbers: Array, each_step: bool) -> Batch:
        """Some sequences, padded with zeros."""
        x, lengths = padded([self.x[k] for k in numbers])
        if each_step:
            target, _ = padded([self.targets[k] for k in numbers])
        else:
            target = np.stack([self.targets[k] for k in numbers])
        weight = None if self.weight is None else self.weight[numbers]
        return Batch(x, target, lengths, weight)

    def batches(
        self, batch_size: int, each_step: bool, rng: np.random.Generator | None
    ) -> Iterator[Batch]:
        """All sequences once."""
        for numbers in self.order(batch_size, rng):
            yield self.batch(numbers, each_step)


def _rows(name: str, given: Any) -> Sequence[Array]:
    """One array for each sequence."""
    if isinstance(given, np.ndarray) and given.dtype != object:
        if given.ndim < 1:
            raise ValueError(f"{name} has shape {given.shape}, wanted a row for each sequence")
        return [np.asarray(one) for one in given]
    if isinstance(given, str | bytes | dict) or not hasattr(given, "__len__"):
        raise TypeError(f"{name} is a {type(given).__name__}, wanted an array or a list of arrays")
    return [check.array(f"{name}, number {k},", one) for k, one in enumerate(given)]


def padded(rows: Sequence[Array]) -> tuple[Array, Array | None]:
    """Sequences (T_i, ...) as one array (T, B, ...), zeros behind them; lengths if they differ."""
    lengths = np.array([len(one) for one in rows])
    T, first = int(lengths.max()), rows[0]
    dtype = np.result_type(*{one.dtype for one in rows})
    found = np.zeros((T, len(rows), *first.shape[1:]), dtype)
    for b, one in enumerate(rows):
        if one.shape[1:] != first.shape[1:]:
            raise ValueError(f"steps differ in shape: {one.shape[1:]} and {first.shape[1:]}")
        found[: len(one), b] = one
    return found, None if lengths.min() == T else lengths
