"""RTNeural's JSON files, of both kinds: Keras layers in order, or a state dict of PyTorch.

Of the first kind, each layer has a type, an activation, a shape that ends in its width, and
weights as Keras lays them out: kernels (in, gates * H), an LSTM's gates i, f, c, o, a GRU's z,
r, h. The second kind says nothing about how its modules are joined: they are taken in the
order of the file, each behind the one before, without an activation between them.
"""

import json
import os
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import budget
from fastrnn.files.errors import MisfitError
from fastrnn.files.gates import from_format, to_format
from fastrnn.files.json import parse
from fastrnn.files.paths import path_of
from fastrnn.models.cells import RecurrentCell
from fastrnn.models.layer import Layer
from fastrnn.models.layers import GRU, LSTM
from fastrnn.models.linear import ACTIVATIONS, Linear
from fastrnn.models.sequential import Sequential
from fastrnn.weights import modules
from fastrnn.weights.contents import Part, shapes_of, with_listing
from fastrnn.weights.state_dict import (
    config_of,
    float_array,
    linear_config,
    modules_of,
)
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.files import write_whole


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """The model of a file, float32; a Sequential, but for a state dict of one cell.

    prefix: of layers, the number of the one to take; of a state dict, the path of a module.

    Raises OSError if it cannot be read, ValueError if it is no JSON of RTNeural's, holds a
    layer of an unknown type, or one whose weights do not fit.
    """
    found = _read(path)
    try:
        if "layers" not in found:
            model = modules.load(path, found, device, prefix, _array)
            whole = prefix or isinstance(model, RecurrentCell | Sequential)
            return model if whole else Sequential(model)
        if not prefix:
            return _from_layers(found, device)
        parts = _parts(found, device)
    except MisfitError as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r}: {error}") from None
    chosen = [part for part in parts if part.prefix == prefix.removeprefix("layers.")]
    if not chosen:
        raise ValueError(with_listing(f"file {path!r} has no layer {prefix!r}", parts))
    if chosen[0].model is None:
        raise ValueError(f"file {path!r}: {chosen[0].reason}")
    return chosen[0].model


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds, by the prefixes that `load` takes."""
    found = _read(path)
    try:
        if "layers" in found:
            return _parts(found, device)
        return modules.contents(found, device, _array)
    except MisfitError as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r}: {error}") from None


#: What some name of a state dict has in it.
_WORDS = ("weight_", ".weight", "bias", "kernel")


def _read(path: str) -> dict[str, Any]:
    data, room = budget.read(path)
    try:
        found = parse(data, room, "it")
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"file {path!r}: it holds a {type(found).__name__}, wanted an object")
    if "architecture" in found and "weights" in found:
        raise ValueError(
            f"file {path!r} is a model of NeuralAmpModeler's ({found['architecture']}), none of "
            "RTNeural's: call it .nam, or say of='nam'"
        )
    inner = [value for value in found.values() if isinstance(value, dict)]
    names = [name for one in (found, *inner) for name in one]
    of_weights = any(word in name for name in names for word in _WORDS)
    if found and "layers" not in found and not of_weights:
        raise ValueError(
            f"file {path!r} is no model of RTNeural's: it has {', '.join(list(found)[:8])}, wanted "
            "'layers', or a state dict of PyTorch's"
        )
    return found


def _numbers(where: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Weights of a known shape."""
    array = _array(where, value)
    if array.shape != shape:
        raise MisfitError(f"{where} has shape {array.shape}, wanted {shape}")
    return array


def _array(where: str, value: Any) -> Array:
    return float_array(where, value).astype(np.float32, copy=False)


def _width(shape: Any, where: str) -> int:
    width = shape[-1] if isinstance(shape, list) and shape else None
    if isinstance(width, bool) or not isinstance(width, int) or not 0 < width < 2**20:
        raise MisfitError(f"{where} has shape {shape!r}, wanted a list that ends in a width")
    return width


def _from_layers(found: dict[str, Any], device: str) -> Sequential:
    width = _width(found.get("in_shape"), "the input")
    layers = found["layers"]
    if not isinstance(layers, list) or not layers:
        raise MisfitError("'layers' is no list of layers")
    made: list[Any] = []
    for k, layer in enumerate(layers):
        made.append(_layer(k, layer, width, device))
        width = _width(layer.get("shape"), f"layer {k} ({layer.get('type')})")
    return Sequential(*made)


def _layer(k: int, layer: Any, width: int, device: str) -> Any:
    if not isinstance(layer, dict):
        raise MisfitError(f"layer {k} is a {type(layer).__name__}, wanted an object")
    kind = layer.get("type")
    where = f"layer {k} ({kind})"
    if kind in ("dense", "time-distributed-dense"):
        return _dense(where, layer, width, device)
    if kind in ("lstm", "gru"):
        return _recurrent(where, layer, width, device)
    wanted = "dense, time-distributed-dense, lstm or gru"
    raise MisfitError(f"layer {k} has the unknown type {kind!r}, wanted {wanted}")


def _parts(found: dict[str, Any], device: str) -> list[Part]:
    """The layers by their numbers, with those that fastrnn has not."""
    width = _width(found.get("in_shape"), "the input")
    layers = found["layers"] if isinstance(found["layers"], list) else []
    parts = []
    for k, layer in enumerate(layers):
        try:
            model = _layer(k, layer, width, device)
            parts.append(Part(str(k), shapes_of(model.parameters), model))
        except MisfitError as error:
            handlers.pass_on(error)
            parts.append(Part(str(k), reason=str(error)))
        if not isinstance(layer, dict):
            break
        width = _width(layer.get("shape"), f"layer {k} ({layer.get('type')})")
    return parts


def _weights(where: str, layer: dict[str, Any], many: int) -> list[Any]:
    weights = layer.get("weights")
    if not isinstance(weights, list) or len(weights) != many:
        came = f"{len(weights)} of them" if isinstance(weights, list) else repr(weights)
        raise MisfitError(f"{where} has for weights {came}, wanted a list of {many}")
    return weights


def _dense(where: str, layer: dict[str, Any], width: int, device: str) -> Linear:
    activation = layer.get("activation") or None
    if activation == "linear":
        activation = None
    if activation is not None and activation not in list(ACTIVATIONS):
        raise MisfitError(
            f"{where} has the unknown activation {activation!r}, wanted {', '.join(ACTIVATIONS)}"
        )
    H = _width(layer.get("shape"), where)
    kernel, bias = _weights(where, layer, 2)
    kernel = _numbers(f"{where}: kernel", kernel, (width, H))
    bias = _numbers(f"{where}: bias", bias, (H,))
    config = linear_config(width, H, True, activation, device, "float32")
    return Linear._restored(config, {"weight": kernel.T, "bias": bias})


def _recurrent(where: str, layer: dict[str, Any], width: int, device: str) -> Any:
    if layer.get("activation", "tanh") not in ("", "tanh", None):
        raise MisfitError(f"{where} has the activation {layer['activation']!r}, wanted 'tanh'")
    H = _width(layer.get("shape"), where)
    kernel, recurrent, bias = _weights(where, layer, 3)
    G = 4 if layer["type"] == "lstm" else 3
    w_ih = _numbers(f"{where}: kernel", kernel, (width, G * H)).T
    w_hh = _numbers(f"{where}: recurrent kernel", recurrent, (H, G * H)).T
    values = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh}
    config = config_of(LSTM if G == 4 else GRU, width, H, 1, True, device)
    if G == 4:
        values["bias_ih_l0"] = _numbers(f"{where}: bias", bias, (G * H,))
        values["bias_hh_l0"] = np.zeros(G * H, np.float32)
        return LSTM._restored(config, values)
    # With two rows of biases, the reset gate comes after the product.
    after = isinstance(bias, list) and bool(bias) and isinstance(bias[0], list)
    shape = (2, G * H) if after else (G * H,)
    biases = np.zeros((2, G * H), np.float32)
    biases[: len(shape)] = _numbers(f"{where}: bias", bias, shape)
    values |= {"bias_ih_l0": biases[0], "bias_hh_l0": biases[1]}
    values = {name: from_format("keras", value, G) for name, value in values.items()}
    return GRU._restored({**config, "reset_after": after}, values)


def save(model: Layer[Any] | Linear | Sequential, path: str | os.PathLike[str]) -> None:
    """Write a model as RTNeural's Keras-style layers, one to a level, in float32.

    Raises ValueError for what RTNeural has not: a simple RNN, a projection, a reverse direction;
    TypeError for another kind of model.
    """
    own = modules_of(model)
    layers = [layer for module in own for layer in _layers_of(module)]
    first = own[0]
    width = first.in_features if isinstance(first, Linear) else first.input_size
    found = {"in_shape": [None, None, width], "layers": layers}
    write_whole(path_of(path), json.dumps(found).encode())


def _numbers_of(array: Array) -> Any:
    return np.asarray(array, np.float32).tolist()


def _layers_of(module: Any) -> list[dict[str, Any]]:
    if isinstance(module, Linear):
        bias = module.parameters.get("bias", np.zeros(module.out_features))
        weights = [_numbers_of(module.parameters["weight"].T), _numbers_of(bias)]
        return [_layer_of("dense", module.activation or "", module.out_features, weights)]
    if not isinstance(module, LSTM | GRU) or module.bidirectional or module.proj_size:
        raise ValueError(f"RTNeural has nothing that is {module!r}")
    G, H = len(module._cell.gates), module.hidden_size
    made = []
    for k in range(module.num_layers):
        values = {
            name.removesuffix(f"_l{k}"): to_format("keras", value, G)
            for name, value in module.parameters.items()
            if name.endswith(f"_l{k}")
        }
        b_ih, b_hh = (values.get(name, np.zeros(G * H)) for name in ("bias_ih", "bias_hh"))
        after = isinstance(module, GRU) and module.reset_after
        bias = np.stack([b_ih, b_hh]) if after else b_ih + b_hh
        weights = [values["weight_ih"].T, values["weight_hh"].T, bias]
        kind = "lstm" if isinstance(module, LSTM) else "gru"
        made.append(_layer_of(kind, "tanh", H, [_numbers_of(array) for array in weights]))
    return made


def _layer_of(kind: str, activation: str, width: int, weights: list[Any]) -> dict[str, Any]:
    return {
        "type": kind, "activation": activation, "shape": [None, None, width], "weights": weights
    }  # fmt: skip
