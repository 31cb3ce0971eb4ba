"""Fused recurrent kernels for NumPy arrays: RNN, LSTM and GRU with backpropagation through time.

    lstm = fastrnn.LSTM(64, 128)
    y, (h_n, c_n) = lstm(x)                          # x (T, B, 64)
    y, state, tape = lstm.forward(x)
    gradients = lstm.backward(tape, dy)              # .x, .state, .parameters[name]

Names, arguments, gate order and the layout of states are those of `torch.nn`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastrnn import jit
from fastrnn.device import (
    Device,
    allow_tf32,
    devices,
    get_num_threads,
    release_memory,
    set_num_threads,
    tf32_allowed,
)
from fastrnn.models.attention import Attention
from fastrnn.models.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.models.classes import DEFINING as _DEFINING
from fastrnn.models.classes import class_of as _class_of
from fastrnn.models.dropout import Dropout
from fastrnn.models.embedding import Embedding
from fastrnn.models.ensemble import Ensemble
from fastrnn.models.layers import GRU, LSTM, RNN
from fastrnn.models.linear import Linear
from fastrnn.models.pool import Pool
from fastrnn.models.sequential import Sequential
from fastrnn.models.tape import Gradients, Tape
from fastrnn.models.truncated import Window, truncated
from fastrnn.streams.cpu import Stream
from fastrnn.streams.snapshot import Snapshot
from fastrnn.tools.explain import Explanation, explain
from fastrnn.tools.warmup import warmup
from fastrnn.weights import load

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "Device",
    "Dropout",
    "Embedding",
    "Ensemble",
    "Explanation",
    "GRUCell",
    "Gradients",
    "LSTMCell",
    "Linear",
    "Pool",
    "RNNCell",
    "Sequential",
    "Snapshot",
    "Stream",
    "Tape",
    "Window",
    "__version__",
    "allow_tf32",
    "cell",
    "cells",
    "devices",
    "equations",
    "explain",
    "get_num_threads",
    "jit",
    "load",
    "release_memory",
    "set_num_threads",
    "tf32_allowed",
    "truncated",
    "warmup",
]

#: What only those need who define cells, or name cells of papers: imported when it is asked for.
_DEFINERS = {
    "cell": "fastrnn.define:cell",
    "cells": "fastrnn.cells",
    "equations": "fastrnn.equations",
}
_DEFINING.append(lambda name: import_module("fastrnn.cells").define(name))

if TYPE_CHECKING:
    from fastrnn import cells, equations
    from fastrnn.define import cell
else:

    def __getattr__(name: str) -> Any:
        """What is imported late, and classes of cells that are registered, not written out."""
        if name in _DEFINERS:
            module, _, attribute = _DEFINERS[name].partition(":")
            found = import_module(module)
            found = globals()[name] = getattr(found, attribute) if attribute else found
            return found
        try:
            return _class_of(name)
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
