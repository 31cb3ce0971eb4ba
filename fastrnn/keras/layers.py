"""The layers over whole sequences, as Keras's."""

from inspect import Parameter, signature
from typing import Any

import keras
from keras import ops

from fastrnn import check
from fastrnn.keras.run import KNOWN, ByKernels, sequence


def _layer(made: Any) -> Any:
    """Register a class of layers, and let it tell its arguments, which Keras reads of a layer."""
    own = signature(made.__bases__[1].__init__)
    *before, options = own.parameters.values()
    more = Parameter("initial_state", Parameter.KEYWORD_ONLY, default="zeros", annotation=str)

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        Loop.__init__(self, *arguments, **options)

    init.__signature__ = own.replace(parameters=[*before, more, options])  # type: ignore[attr-defined]
    made.__init__ = init
    return keras.saving.register_keras_serializable(package="fastrnn")(made)


class Loop(ByKernels):
    """A layer whose loop over time is the kernels'; all around it is Keras's.

    initial_state: "zeros", or "learned": weights, zeros at first, that states begin from where none
        is given, called initial_h and, as the cell's states are, initial_c. For layers that are
        not stateful.
    """

    # Instances that have it of their own were made as fastrnn's.
    initial_state: str = "zeros"
    # Of Keras's own class behind this one.
    add_weight: Any
    cell: Any
    state_size: Any
    stateful: Any

    def __init__(self, *arguments: Any, initial_state: str = "zeros", **options: Any) -> None:
        check.choice("initial_state", initial_state, ("zeros", "learned"))
        super().__init__(*arguments, **options)
        if initial_state != "learned":
            return
        if self.stateful:
            raise ValueError("initial_state is 'learned' and stateful True, wanted one of them")
        if type(self.cell) not in KNOWN:
            kind = type(self.cell).__name__
            raise ValueError(
                f"initial_state is 'learned' and the cell a {kind}, wanted Keras's or fastrnn's"
            )
        self.initial_state = initial_state

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Make the weights."""
        super().build(sequences_shape, initial_state_shape)  # type: ignore[misc]
        if self.initial_state == "learned":
            derived = getattr(self.cell, "derived", None)
            names = "hc" if derived is None else derived.cell.states
            self._starts = [
                self.add_weight(shape=(width,), initializer="zeros", name=f"initial_{name}")
                for name, width in zip(names, self.state_size, strict=False)
            ]

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """What states begin from, (B, H) each."""
        if self.initial_state != "learned":
            found: list[Any] = super().get_initial_state(batch_size)  # type: ignore[misc]
            return found
        dtype = self.cell.compute_dtype
        return [
            ops.broadcast_to(ops.cast(start, dtype), (batch_size, width))
            for start, width in zip(self._starts, self.state_size, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """What makes one like it."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        chosen = {"initial_state": "learned"} if self.initial_state == "learned" else {}
        return {**config, **chosen}

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """The last output, all outputs (or the last one) and the final states."""
        if not isinstance(initial_state, list | tuple):
            initial_state = [initial_state]
        found = sequence(self, sequences, initial_state, mask, training)
        if found is not None:
            return found
        return super().inner_loop(sequences, initial_state, mask, training)  # type: ignore[misc]


@_layer
class SimpleRNN(Loop, keras.layers.SimpleRNN):  # type: ignore[misc]
    """`keras.layers.SimpleRNN`, run and trained by fastrnn's kernels."""


@_layer
class LSTM(Loop, keras.layers.LSTM):  # type: ignore[misc]
    """`keras.layers.LSTM`, run and trained by fastrnn's kernels."""


@_layer
class GRU(Loop, keras.layers.GRU):  # type: ignore[misc]
    """`keras.layers.GRU`, run and trained by fastrnn's kernels, reset_after or not."""


@_layer
class RNN(Loop, keras.layers.RNN):  # type: ignore[misc]
    """`keras.layers.RNN`: whole sequences by the kernels if the cell is one they know.

    That is a SimpleRNNCell, LSTMCell or GRUCell of Keras's or fastrnn's. Keras's own RNN
    takes fastrnn's cells too, but calls them step by step.
    """
