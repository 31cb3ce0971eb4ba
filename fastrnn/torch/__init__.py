"""torch's recurrent modules on fastrnn's kernels.

    from fastrnn.torch import LSTM            # in the place of torch.nn.LSTM
    print(fastrnn.torch.accelerate(model))    # or: every recurrent module of a model

`RNN`, `LSTM`, `GRU` and their cells are torch's own classes with another forward pass: what takes
a torch module takes them, but for what goes by the exact type, such as quantisation, which comes
before `accelerate`. `FALLBACKS` lists when torch's own kernels run all the same.
"""

from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.compiling import allow
from fastrnn.torch.fallbacks import FALLBACKS
from fastrnn.torch.layers import GRU, LSTM, RNN
from fastrnn.torch.operators import LIBRARY as _LIBRARY  # noqa: F401  (defined for good)
from fastrnn.torch.swap import Accelerated, accelerate, restore

__all__ = [
    "FALLBACKS",
    "GRU",
    "LSTM",
    "RNN",
    "Accelerated",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "accelerate",
    "restore",
]

allow()


def __dir__() -> list[str]:
    return sorted(__all__)
