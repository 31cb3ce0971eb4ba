"""What a forward pass hands to the backward pass, and what that gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from fastrnn.arrays import Array, State
from fastrnn.models.regularised import Drawn


@dataclass(frozen=True, eq=False)
class Tape:
    """One forward pass, as `backward` needs it. It may be used any number of times.

    learned: whether states began from the layer's parameters.
    gates: with `return_gates=True`, for each layer and direction (layer-major, as in the
    states) the values of the gates, and of the cell state, (T, B, H) each; else None.
    """

    owner: Any = field(repr=False)
    shape: tuple[int, ...]  # of y, as the user has it
    batched: bool
    batch_first: bool
    passes: Sequence[Any] = field(repr=False)  # of the kernels, layer-major
    #: dropout in front of each layer, if there is any
    masks: Sequence[Array | None] | None = field(repr=False)
    host: bool  # whether results are NumPy's
    device: str  # "cpu" or "cuda": where it was made, and where backward runs
    learned: bool
    gates: Sequence[Mapping[str, Array]] | None = field(default=None, repr=False)
    drawn: Drawn | None = field(default=None, repr=False)  # in training, if anything was


def check_owner(tape: Any, kind: type[Any], owner: Any, other: str) -> None:
    """Raise TypeError or ValueError for what is no tape of this layer's, cell's or model's forward.

    other: what another one is called, with {!r} in the place of it.
    """
    if not isinstance(tape, kind):
        raise TypeError(
            f"tape is a {type(tape).__name__}, wanted the {kind.__name__} that forward gives"
        )
    if tape.owner is not owner:
        raise ValueError(f"tape comes from {other.format(tape.owner)}")


@dataclass(frozen=True, eq=False)
class Gradients(Generic[State]):
    """Gradients of a loss: of the input, of the initial state, of each parameter by name."""

    x: Array
    state: State
    parameters: Mapping[str, Array]
