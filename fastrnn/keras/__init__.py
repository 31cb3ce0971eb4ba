"""Keras 3's recurrent layers and cells, run and trained by fastrnn's kernels.

    from fastrnn.keras import LSTM              # in place of: from keras.layers import LSTM
    fastrnn.keras.accelerate(model)             # or: swap the layers of a model that is built

Layers of cells that a program has defined (`fastrnn.cell`) come from their own classes,
`PeepholeLSTM.keras(128)`; whoever loads a model with some imports this module before.

On the backends torch, JAX and TensorFlow, and NumPy for inference, on the CPU. What the
kernels cannot do runs by Keras's own step, with one warning: FALLBACKS is the list.
"""

from fastrnn.keras import defined as _defined  # noqa: F401  (registers classes)
from fastrnn.keras.accelerate import Report, accelerate, restore
from fastrnn.keras.cells import GRUCell, LSTMCell, SimpleRNNCell
from fastrnn.keras.fallbacks import FALLBACKS
from fastrnn.keras.layers import GRU, LSTM, RNN, SimpleRNN

__all__ = [
    "FALLBACKS",
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Report",
    "SimpleRNN",
    "SimpleRNNCell",
    "accelerate",
    "restore",
]


def __dir__() -> list[str]:
    return sorted(__all__)
