"""RTNeural's JSON files, of both kinds: Keras layers in order, or a state dict of PyTorch.

Of the first kind, each layer has a type, an activation, a shape that ends in its width, and
weights as Keras lays them out: kernels (in, gates * H), an LSTM's gates i, f, c, o, a GRU's z,
r, h. The second kind says nothing about how its modules are joined: they are taken in the
order of the file, each behind the one before, without an activation between them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.check import Array
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.linear import ACTIVATIONS, Linear
from fastrnn.sequential import Sequential

_RECURRENT = {1: RNN, 3: GRU, 4: LSTM}  # by the number of gates


class _MisfitError(ValueError):
    """What is wrong with a layer, to be told with the file's name."""


def load(path: str, device: str = "auto") -> Sequential:
    """The model of a file, float32.

    Raises OSError if it cannot be read, ValueError if it is no JSON of RTNeural's, holds a
    layer of an unknown type, or one whose weights do not fit.
    """
    text = Path(path).read_bytes()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"file {path!r} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"file {path!r} holds a {type(found).__name__}, wanted an object")
    try:
        if "layers" in found:
            return _from_layers(found, device)
        return _from_state_dict(found, device)
    except _MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from None


def _numbers(where: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Weights of a known shape."""
    array = _array(where, value)
    if array.shape != shape:
        raise _MisfitError(f"{where} has shape {array.shape}, wanted {shape}")
    return array


def _array(where: str, value: Any) -> Array:
    try:
        array = np.array(value)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "fiu":
        raise _MisfitError(f"{where} is no array of numbers")
    return array.astype(np.float32)


def _width(shape: Any, where: str) -> int:
    width = shape[-1] if isinstance(shape, list) and shape else None
    if isinstance(width, bool) or not isinstance(width, int) or not 0 < width < 2**20:
        raise _MisfitError(f"{where} has shape {shape!r}, wanted a list that ends in a width")
    return width


def _from_layers(found: dict[str, Any], device: str) -> Sequential:
    width = _width(found.get("in_shape"), "the input")
    layers = found["layers"]
    if not isinstance(layers, list) or not layers:
        raise _MisfitError("'layers' is no list of layers")
    modules: list[Any] = []
    for k, layer in enumerate(layers):
        if not isinstance(layer, dict):
            raise _MisfitError(f"layer {k} is a {type(layer).__name__}, wanted an object")
        kind = layer.get("type")
        where = f"layer {k} ({kind})"
        if kind in ("dense", "time-distributed-dense"):
            modules.append(_dense(where, layer, width, device))
        elif kind in ("lstm", "gru"):
            modules.append(_recurrent(where, layer, width, device))
        else:
            wanted = "dense, time-distributed-dense, lstm or gru"
            raise _MisfitError(f"layer {k} has the unknown type {kind!r}, wanted {wanted}")
        width = _width(layer.get("shape"), where)
    return Sequential(*modules)


def _weights(where: str, layer: dict[str, Any], many: int) -> list[Any]:
    weights = layer.get("weights")
    if not isinstance(weights, list) or len(weights) != many:
        came = f"{len(weights)} of them" if isinstance(weights, list) else repr(weights)
        raise _MisfitError(f"{where} has for weights {came}, wanted a list of {many}")
    return weights


def _dense(where: str, layer: dict[str, Any], width: int, device: str) -> Linear:
    activation = layer.get("activation") or None
    if activation == "linear":
        activation = None
    if activation is not None and activation not in list(ACTIVATIONS):
        raise _MisfitError(
            f"{where} has the unknown activation {activation!r}, wanted {', '.join(ACTIVATIONS)}"
        )
    H = _width(layer.get("shape"), where)
    kernel, bias = _weights(where, layer, 2)
    kernel = _numbers(f"{where}: kernel", kernel, (width, H))
    bias = _numbers(f"{where}: bias", bias, (H,))
    config = {
        "in_features": width, "out_features": H, "bias": True, "activation": activation,
        "device": device, "dtype": "float32",
    }  # fmt: skip
    return Linear._restored(config, {"weight": kernel.T, "bias": bias})


def _config(width: int, H: int, layers: int, bias: bool, device: str) -> dict[str, Any]:
    return {
        "input_size": width, "hidden_size": H, "num_layers": layers, "bias": bias,
        "batch_first": False, "dropout": 0.0, "bidirectional": False,
        "device": device, "dtype": "float32",
    }  # fmt: skip


def _recurrent(where: str, layer: dict[str, Any], width: int, device: str) -> Any:
    if layer.get("activation", "tanh") not in ("", "tanh", None):
        raise _MisfitError(f"{where} has the activation {layer['activation']!r}, wanted 'tanh'")
    H = _width(layer.get("shape"), where)
    kernel, recurrent, bias = _weights(where, layer, 3)
    G = 4 if layer["type"] == "lstm" else 3
    w_ih = _numbers(f"{where}: kernel", kernel, (width, G * H)).T
    w_hh = _numbers(f"{where}: recurrent kernel", recurrent, (H, G * H)).T
    values = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh}
    config = _config(width, H, 1, True, device)
    if G == 4:
        values["bias_ih_l0"] = _numbers(f"{where}: bias", bias, (G * H,))
        values["bias_hh_l0"] = np.zeros(G * H, np.float32)
        return LSTM._restored({**config, "proj_size": 0}, values)
    # With two rows of biases, the reset gate comes after the product.
    after = isinstance(bias, list) and bool(bias) and isinstance(bias[0], list)
    shape = (2, G * H) if after else (G * H,)
    biases = np.zeros((2, G * H), np.float32)
    biases[: len(shape)] = _numbers(f"{where}: bias", bias, shape)
    values |= {"bias_ih_l0": biases[0], "bias_hh_l0": biases[1]}
    order = np.r_[H : 2 * H, :H, 2 * H : 3 * H]  # z, r, h -> r, z, n
    values = {name: value[order] for name, value in values.items()}
    return GRU._restored({**config, "reset_after": after}, values)


def _from_state_dict(found: dict[str, Any], device: str) -> Sequential:
    modules: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        prefix, _, rest = name.rpartition(".")
        modules.setdefault(prefix, {})[rest] = value
    made = [_from_module(prefix, values, device) for prefix, values in modules.items()]
    if not made:
        raise _MisfitError("it holds neither layers nor a state dict")
    try:
        return Sequential(*made)
    except ValueError as error:
        raise _MisfitError(f"its modules {', '.join(modules)} do not fit: {error}") from None


def _shape(where: str, value: Any) -> tuple[int, ...]:
    return _array(where, value).shape


def _from_module(prefix: str, values: dict[str, Any], device: str) -> Any:
    where = prefix or "the module"
    if set(values) <= {"weight", "bias"} and "weight" in values:
        shape = _shape(f"{where}.weight", values["weight"])
        if len(shape) != 2 or 0 in shape:
            raise _MisfitError(f"{where}.weight has shape {shape}, wanted that of a linear layer")
        config = {
            "in_features": shape[1], "out_features": shape[0], "bias": "bias" in values,
            "activation": None, "device": device, "dtype": "float32",
        }  # fmt: skip
        kind: Any = Linear
    elif "weight_ih_l0" in values and "weight_hh_l0" in values:
        rows, width = (*_shape(f"{where}.weight_ih_l0", values["weight_ih_l0"]), 0, 0)[:2]
        hidden = (*_shape(f"{where}.weight_hh_l0", values["weight_hh_l0"]), 0, 0)[1]
        gates = rows // hidden if hidden and rows % hidden == 0 else 0
        kind = _RECURRENT.get(gates)
        if kind is None or width < 1:
            raise _MisfitError(
                f"{where}.weight_ih_l0 and weight_hh_l0 are those of no RNN, GRU or LSTM"
            )
        layers = sum(name.startswith("weight_ih_l") for name in values)
        config = _config(width, hidden, layers, "bias_ih_l0" in values, device)
        own: dict[Any, dict[str, Any]] = {
            RNN: {"nonlinearity": "tanh"},
            GRU: {"reset_after": True},
            LSTM: {"proj_size": 0},
        }
        config |= own[kind]
    else:
        raise _MisfitError(f"{where} is of an unknown type: it has {', '.join(sorted(values))}")
    # Shapes are checked where the values are taken.
    try:
        arrays = {name: _array(f"{where}.{name}", value) for name, value in values.items()}
        return kind._restored(config, arrays)
    except _MisfitError:
        raise
    except ValueError as error:
        raise _MisfitError(f"{where}: {error}") from None
