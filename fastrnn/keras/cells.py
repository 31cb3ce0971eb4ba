"""The cells: one time step, as Keras's."""

from typing import Any

import keras

from fastrnn.keras.run import KNOWN, ByKernels, step

_registered = keras.saving.register_keras_serializable(package="fastrnn")


@_registered
class SimpleRNNCell(ByKernels, keras.layers.SimpleRNNCell):  # type: ignore[misc]
    """`keras.layers.SimpleRNNCell`, its step and gradient computed by fastrnn."""

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: x (B, I), states [h (B, H)] -> h, [h]."""
        found = step(self, sequence, states, training)
        return super().call(sequence, states, training=training) if found is None else found


@_registered
class LSTMCell(ByKernels, keras.layers.LSTMCell):  # type: ignore[misc]
    """`keras.layers.LSTMCell`, its step and gradient computed by fastrnn."""

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step: x (B, I), states [h, c], (B, H) each -> h, [h, c]."""
        found = step(self, inputs, states, training)
        return super().call(inputs, states, training=training) if found is None else found


@_registered
class GRUCell(ByKernels, keras.layers.GRUCell):  # type: ignore[misc]
    """`keras.layers.GRUCell`, its step and gradient computed by fastrnn."""

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step: x (B, I), states [h (B, H)] -> h, [h]."""
        found = step(self, inputs, states, training)
        return super().call(inputs, states, training=training) if found is None else found


KNOWN |= {SimpleRNNCell, LSTMCell, GRUCell}
