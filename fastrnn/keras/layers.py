"""The layers over whole sequences, as Keras's."""

from typing import Any

import keras

from fastrnn.keras.run import ByKernels, sequence

_registered = keras.saving.register_keras_serializable(package="fastrnn")


class Loop(ByKernels):
    """A layer whose loop over time is the kernels'; all around it is Keras's."""

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


@_registered
class SimpleRNN(Loop, keras.layers.SimpleRNN):  # type: ignore[misc]
    """`keras.layers.SimpleRNN`, run and trained by fastrnn's kernels."""


@_registered
class LSTM(Loop, keras.layers.LSTM):  # type: ignore[misc]
    """`keras.layers.LSTM`, run and trained by fastrnn's kernels."""


@_registered
class GRU(Loop, keras.layers.GRU):  # type: ignore[misc]
    """`keras.layers.GRU`, run and trained by fastrnn's kernels, reset_after or not."""


@_registered
class RNN(Loop, keras.layers.RNN):  # type: ignore[misc]
    """`keras.layers.RNN`: whole sequences by the kernels if the cell is one they know.

    That is a SimpleRNNCell, LSTMCell or GRUCell of Keras's or fastrnn's. Keras's own RNN
    takes fastrnn's cells too, but calls them step by step.
    """
