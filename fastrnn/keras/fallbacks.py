"""What the kernels leave to Keras's own step, and why: the whole list."""

import warnings
import weakref
from collections.abc import Mapping
from types import FrameType, MappingProxyType
from typing import Any

import keras

from fastrnn.adapting import level_of_user
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations import variants
from fastrnn_kernels.equations.activations import NAMES, Activation, activation
from fastrnn_kernels.equations.define import Derived

#: The cases in which Keras's own step runs, by name.
FALLBACKS: Mapping[str, str] = MappingProxyType(
    {
        "activation": "an activation is none of those of Keras's that fastrnn.LSTM has by name",
        "dropout_per_gate": "in training with implementation=1 each gate has an x of its own",
        "whole_dropout": "dropout or recurrent_dropout is 1 in training, where Keras's own paths "
        "differ",
        "dtype": "the kernels train in float32 and float64, not in half precision",
        "device": "the tensors are on an accelerator, and these kernels are the CPU's",
        "use_cudnn": "use_cudnn=True asks for cuDNN",
        "export": "a program that is being exported can hold framework operations only",
        "cell": "RNN has a cell that is none of Keras's or fastrnn's SimpleRNNCell, LSTMCell, "
        "GRUCell, and no defined one",
        "mask": "the mask is not (batch, time)",
    }
)

#: Keras's functions, and what each is in equations. Those of `keras.ops` are other objects, some
#: with other usual parameters.
ACTIVATIONS: list[tuple[Any, Activation]] = [
    *((getattr(keras.ops, name), activation(name)) for name in ("tanh", "relu", "sigmoid")),
    *(
        (getattr(keras.activations, name), activation(name))
        for name in NAMES
        if hasattr(keras.activations, name)
    ),
]

#: Packages whose functions may stand between a layer's call and here.
_INNER = {"contextlib", "fastrnn", "functools", "jax", "keras", "numpy", "tensorflow", "torch"}

_said: "weakref.WeakKeyDictionary[Any, set[str]]" = weakref.WeakKeyDictionary()


def _between(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _INNER


def say(layer: Any, name: str) -> None:
    """Warn, once for a layer and a reason, that Keras's own step runs."""
    said = _said.setdefault(layer, set())
    if name not in said:
        said.add(name)
        warnings.warn(
            f"{layer.name} runs by Keras's own step, not by fastrnn's kernels: {FALLBACKS[name]}",
            UserWarning,
            stacklevel=level_of_user(_between),
        )


def kernel_of(cell: Any) -> Cell | None:
    """The kernels' cell with the equations of a Keras cell, None if there is none."""
    derived: Derived | None = getattr(cell, "derived", None)
    if derived is not None:
        return derived.cell
    act = _activation(cell.activation)
    if act is None:
        return None
    if isinstance(cell, keras.layers.SimpleRNNCell):
        return variants.rnn(act, None)
    gate = _activation(cell.recurrent_activation)
    if gate is None:
        return None
    if isinstance(cell, keras.layers.LSTMCell):
        return variants.lstm(gate, act, act, None, False, False)
    return variants.gru(gate, act, None, cell.reset_after)


def _activation(function: Any) -> Activation | None:
    return next((ours for theirs, ours in ACTIVATIONS if theirs is function), None)


def always(cell: Any) -> str | None:
    """The fallback that a cell takes whatever it is given, if any."""
    if kernel_of(cell) is None:
        return "activation"
    if cell.compute_dtype not in ("float32", "float64"):
        return "dtype"
    return None


def in_training(cell: Any) -> str | None:
    """The fallback that a cell takes in training, if any."""
    if isinstance(cell, keras.layers.SimpleRNNCell):
        return None
    if 1 in (cell.dropout, cell.recurrent_dropout):
        return "whole_dropout"
    # Recurrent dropout sets the implementation to 1, whoever did not ask for it.
    if cell.dropout and cell.implementation == 1 and not cell.recurrent_dropout:
        return "dropout_per_gate"
    return None
