"""What calls of modules take and give, for type checkers: torch's own say `Any`."""

from typing import Protocol, TypeVar, overload

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

#: h and c.
Pair = tuple[Tensor, Tensor]
#: Final states: h, or a Pair.
Hidden = TypeVar("Hidden")


class LayerCall(Protocol[Hidden]):
    """Of a layer: a sequence and the initial states; zeros if None."""

    @overload
    def __call__(self, input: Tensor, hx: Hidden | None = None) -> tuple[Tensor, Hidden]: ...

    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self,
        input: PackedSequence,
        hx: Hidden | None = None,
    ) -> tuple[PackedSequence, Hidden]: ...


class CellCall(Protocol[Hidden]):
    """Of a cell: one step's input, and the states; zeros if None."""

    def __call__(self, input: Tensor, hx: Hidden | None = None) -> Hidden:  # noqa: A002
        """The new states."""
