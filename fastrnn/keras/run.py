"""Layers and cells through the kernels, with Keras's operations around them."""

import sys
import weakref
from importlib import import_module
from typing import Any

import keras
from keras import ops

from fastrnn.keras import fallbacks, shapes
from fastrnn.keras.engine import Call
from fastrnn.keras.weights import Layout, Packed

BACKEND = keras.backend.backend()
if BACKEND not in ("jax", "numpy", "tensorflow", "torch"):
    raise ImportError(
        f"Keras's backend is {BACKEND!r}; fastrnn.keras runs on 'torch', 'jax', 'tensorflow' and, "
        "for inference, 'numpy'"
    )
_backend = import_module(f"fastrnn.keras.backends.{BACKEND}")

#: The weights of each cell as the kernels have them. Not an attribute of the cell: Keras would
#: track it, copy it and save it.
_packed: "weakref.WeakKeyDictionary[Any, Packed]" = weakref.WeakKeyDictionary()


#: Cells with the kernels' equations; a subclass of one may have others.
KNOWN = {keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell}


class ByKernels:
    """What fastrnn's layers and cells share."""

    if BACKEND == "tensorflow":
        #: XLA does not compile NumPy functions.
        supports_jit = property(lambda self: False, lambda self, value: None)


def _exporting() -> bool:
    """Whether torch records operations for another program."""
    torch = sys.modules.get("torch") if BACKEND == "torch" else None
    if torch is None:
        return False
    exporting = getattr(torch.compiler, "is_exporting", bool)
    return bool(torch.jit.is_tracing() or exporting())


def _reason(cell: Any, x: Any, training: Any) -> str | None:
    found = fallbacks.always(cell)
    if found is None and training:
        found = fallbacks.in_training(cell)
    if found is None and not _backend.on_cpu(x):
        found = "device"
    if found is None and _exporting():
        found = "export"
    return found


def _call(cell: Any, **how: Any) -> Call:
    kernel = fallbacks.kernel_of(cell)
    assert kernel is not None
    layout = getattr(cell, "layout", None)  # of a cell that a program has defined
    if layout is None:
        gru = isinstance(cell, keras.layers.GRUCell)
        layout = Layout(two_biases=gru and cell.reset_after)
    packed = _packed.setdefault(cell, Packed())
    return Call(kernel, layout, weakref.ref(packed), **how)


def _one(mask: Any) -> Any:
    """One mask for all gates; with implementation=1 Keras has drawn one for each."""
    return mask[0] if isinstance(mask, list) else mask


def _run(call: Call, cell: Any, training: Any, x: Any, mask: Any, states: Any) -> Any:
    dtype = cell.compute_dtype
    B, T = ops.shape(x)[:2]
    h_mask = None
    if training and cell.recurrent_dropout:
        h_mask = ops.cast(_one(cell.get_recurrent_dropout_mask(states[0])), dtype)
        h_mask = shapes.whole_batch(h_mask, B, states[0].shape[-1])
    if mask is not None:
        mask = shapes.whole_batch(mask, B, T)
    kept = cell.kernel, cell.recurrent_kernel, cell.bias, getattr(cell, "units_parameters", None)
    weights = [None if weight is None else ops.cast(weight, dtype) for weight in kept]
    weights.append(h_mask)
    states = [shapes.whole_batch(state, B, cell.recurrent_kernel.shape[0]) for state in states]
    return _backend.run(call, bool(training), x, mask, weights, states)


def sequence(layer: Any, x: Any, states: Any, mask: Any, training: Any) -> Any:
    """What `inner_loop` of a layer gives, by the kernels; None where they cannot."""
    cell = layer.cell
    if isinstance(mask, list | tuple):
        mask = mask[0]
    if type(cell) not in KNOWN:
        reason: str | None = "cell"
    elif getattr(layer, "use_cudnn", "auto") is True:
        reason = "use_cudnn"
    elif mask is not None and len(mask.shape) != 2:
        reason = "mask"
    else:
        reason = _reason(cell, x, training)
    if reason is not None:
        fallbacks.say(layer, reason)
        return None
    # JAX's and NumPy's loops differ from the others in what masked steps show.
    scans = BACKEND in ("jax", "numpy")
    call = _call(
        cell,
        go_backwards=layer.go_backwards,
        sequences=layer.return_sequences,
        zeros=layer.zero_output_for_mask and not (scans and layer.unroll),
        holds_start=scans and not layer.unroll,
    )
    x, *states = (ops.cast(tensor, cell.compute_dtype) for tensor in (x, *states))
    shapes.check(layer, cell, call.cell.states, "BTI", x, mask, states)
    if training and cell.dropout:
        x = x * ops.expand_dims(_one(cell.get_dropout_mask(x[:, 0, :])), 1)
    shown, states = _run(call, cell, training, x, mask, states)
    if layer.return_sequences:
        return shown[:, -1], shown, states
    return shown, shown[:, None], states


def step(cell: Any, x: Any, states: Any, training: Any) -> Any:
    """What `call` of a cell gives, by the kernels; None where they cannot."""
    reason = _reason(cell, x, training)
    if reason is not None:
        fallbacks.say(cell, reason)
        return None
    call = _call(cell)
    nested = isinstance(states, list | tuple)
    given = states if nested else [states]
    x, *before = (ops.cast(tensor, cell.compute_dtype) for tensor in (x, *given))
    shapes.check(cell, cell, call.cell.states, "BI", x, None, before)
    if training and cell.dropout:
        x = x * _one(cell.get_dropout_mask(x))
    h, after = _run(call, cell, training, x[:, None], None, before)
    return h, after if nested else h
