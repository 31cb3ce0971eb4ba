"""The recurrent layers of a model, swapped for fastrnn's in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from fastrnn.keras import fallbacks
from fastrnn.keras.layers import GRU, LSTM, RNN, SimpleRNN
from fastrnn.keras.run import BACKEND, KNOWN, ByKernels

_SWAPS = {
    keras.layers.SimpleRNN: SimpleRNN,
    keras.layers.LSTM: LSTM,
    keras.layers.GRU: GRU,
    keras.layers.RNN: RNN,
}
_BACK = {ours: own for own, ours in _SWAPS.items()}


@dataclass(frozen=True)
class Report:
    """What `accelerate` did: the layers it swapped, and those it left, with the reason."""

    swapped: tuple[str, ...]
    left: Mapping[str, str]


def accelerate(model: Any) -> Report:
    """Let the recurrent layers of a model run by fastrnn's kernels from now on, in place.

    model: a Keras model or layer, built or not, compiled or not. Each SimpleRNN, LSTM, GRU,
        and RNN of one of their cells, wherever it stands (in Bidirectional, in models within),
        becomes fastrnn's class of the same name. It stays the same object with the same
        variables, name, configuration and place in the graph; optimisers go on as they were.

    Functions that Keras compiled for the model's `fit`, `evaluate` and `predict` are made
    anew; call this on the outermost model, and before you compile a function of your own. `restore`
    is the way back.

    Returns a report of the layers swapped and of the recurrent layers left. Raises TypeError
    for what is no Keras layer.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model is a {type(model).__name__}, wanted a Keras model or layer")
    swapped, left = [], {}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            name = layer.path or layer.name
            reason = _reason_to_leave(layer)
            if reason is None:
                # All that the new class adds is a method: instances of both are alike.
                object.__setattr__(layer, "__class__", _SWAPS[type(layer)])
                swapped.append(name)
            else:
                left[name] = reason
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            _forget_compiled(layer)
    return Report(tuple(swapped), left)


def restore(model: Any) -> tuple[str, ...]:
    """Make fastrnn's recurrent layers of a model Keras's own again, in place.

    The way back from `accelerate`, for layers that were made as fastrnn's, too: they stay the same
    objects with all they have. Returns the paths of what changed. Raises TypeError for what is no
    Keras layer, and ValueError, with nothing changed, where one has a learned initial state.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model is a {type(model).__name__}, wanted a Keras model or layer")
    for layer in model._flatten_layers():
        if type(layer) in _BACK and layer.initial_state == "learned":
            raise ValueError(
                f"{layer.path or layer.name} has a learned initial state, which Keras's own has not"
            )
    changed = []
    for layer in model._flatten_layers():
        own = _BACK.get(type(layer))
        if own is not None:
            object.__setattr__(layer, "__class__", own)
            changed.append(layer.path or layer.name)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            _forget_compiled(layer)
    return tuple(changed)


def _reason_to_leave(layer: Any) -> str | None:
    if isinstance(layer, ByKernels):
        return "it is fastrnn's already"
    if type(layer) not in _SWAPS:
        return f"it is a {type(layer).__name__}, whose equations may be others"
    if type(layer.cell) not in KNOWN:
        return fallbacks.FALLBACKS["cell"]
    found = fallbacks.always(layer.cell)
    if found is None and getattr(layer, "use_cudnn", "auto") is True:
        found = "use_cudnn"
    return None if found is None else fallbacks.FALLBACKS[found]


def _forget_compiled(model: Any) -> None:
    if BACKEND == "tensorflow" and getattr(model, "jit_compile", False):
        model.jit_compile = False  # XLA does not compile NumPy functions
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
