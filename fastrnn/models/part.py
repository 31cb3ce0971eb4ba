"""What stands among the recurrent layers of a `Sequential`, and has no state."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.models.module import Module
from fastrnn.models.tape import Gradients, check_owner
from fastrnn.streams.source import LayerState, Source


@dataclass(frozen=True, eq=False)
class PartTape:
    """One forward pass of a part, as its `backward` needs it."""

    owner: Any = field(repr=False)
    shape: tuple[int, ...]  # of y
    kept: Any = field(repr=False)


@dataclass(frozen=True)
class Ragged:
    """How the sequences of a call lie: which axis is time, and how long each is."""

    axis: int  # of time
    lengths: Array | None  # (B,), all whole if None
    #: values at the end of a step that a reverse direction gives
    reverse: int = 0
    #: whether there is an axis of time, as there is none behind a Pool
    timed: bool = True

    def inside(self, shape: Sequence[int]) -> Array:
        """True at the steps that sequences have, with an axis more for the values."""
        T, B = shape[self.axis], shape[1 - self.axis]
        lengths = np.full(B, T) if self.lengths is None else np.asarray(self.lengths).reshape(-1)
        found: Array = np.arange(T)[:, None] < lengths
        return (found.T if self.axis else found)[..., None]


class Part(Module, Source[tuple[()]]):
    """A module without a state, which a `Sequential` may have among its layers."""

    #: whether there is no axis of time behind it
    pools: bool = False

    def _width_in(self) -> int | None:
        """The values that it takes at a step; None for any number."""
        return None

    def _width_out(self, width: int | None) -> int | None:
        """The values that it gives, of so many."""
        return width

    @abstractmethod
    def _run(self, x: Any, ragged: Ragged) -> Array:
        """y, for inference."""

    @abstractmethod
    def _run_taped(
        self, x: Any, ragged: Ragged, training: bool, rng: np.random.Generator | None
    ) -> tuple[Array, Any]:
        """y, and what `_back` needs."""

    @abstractmethod
    def _back(self, kept: Any, dy: Array) -> Gradients[tuple[()]]:
        """The gradients of what went in, None of what has none, and of the parameters."""

    def _forward(
        self, x: Any, ragged: Ragged, training: bool, rng: np.random.Generator | None
    ) -> tuple[Array, PartTape]:
        y, kept = self._run_taped(x, ragged, training, rng)
        return y, PartTape(self, y.shape, kept)

    def _backward(self, tape: Any, dy: Any) -> Gradients[tuple[()]]:
        check_owner(tape, PartTape, self, "another module, {!r}")
        dy = np.asarray(dy)
        if dy.shape != tape.shape:
            raise ValueError(f"dy has shape {dy.shape}, wanted that of y = {tape.shape}")
        return self._back(tape.kept, dy)

    def tape_bytes(self, T: int, B: int) -> int:
        """Bytes that the tape of T steps of B sequences keeps."""
        return 0

    def _on_gpu(self) -> bool:
        return False

    def _layers(self) -> list[Any]:
        raise ValueError(f"{self._owner} runs on the CPU alone")

    def _join_layers(self, layers: Iterator[LayerState]) -> tuple[()]:
        return ()

    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        return []
