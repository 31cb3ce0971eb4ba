"""Models as Keras loads them: `.keras` archives, and `.weights.h5` files."""

import io
import json
import os
import zipfile
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files.gates import to_format
from fastrnn.files.paths import path_of
from fastrnn.models.layer import Layer
from fastrnn.models.layers import GRU, RNN
from fastrnn.models.linear import Linear
from fastrnn.models.sequential import Sequential
from fastrnn.weights.keras import CONFIG, KINDS, METADATA, WEIGHTS
from fastrnn.weights.state_dict import modules_of
from fastrnn_kernels.cache.files import write_whole

#: Whose format is written: Keras reads those of its own future versions, too.
_VERSION = "3.5.0"
#: An entry of an archive needs a date; that of the format's beginning makes equal files equal.
_DATE = (1980, 1, 1, 0, 0, 0)


def save(model: Layer[Any] | Linear | Sequential, path: str | os.PathLike[str]) -> None:
    """Write a model for Keras, one of its layers to a level; batch first, y at all steps.

    A `.keras` file is loaded by `keras.saving.load_model`, another one by `load_weights` of a
    model of these layers.

    Raises ValueError for a projection, which Keras has not, TypeError for another kind of model,
    OSError where it cannot be written.
    """
    target = path_of(path)
    modules = modules_of(model)
    layers = [layer for module in modules for layer in _layers(module)]
    weights = _hdf5(layers)
    if target.suffix.lower() == ".keras":
        first = modules[0]
        width = first.in_features if isinstance(first, Linear) else first.input_size
        weights = _archive(_config(layers, width, str(model.dtype)), weights)
    write_whole(target, weights)


class _KerasLayer:
    """A layer of Keras's: its class, configuration, and the variables of each direction."""

    def __init__(self, kind: str, config: dict[str, Any], variables: list[list[Array]]) -> None:
        self.kind, self.config, self.variables = kind, config, variables

    @property
    def snake(self) -> str:
        """Its name in files."""
        if len(self.variables) > 1:
            return "bidirectional"
        return {"SimpleRNN": "simple_rnn"}.get(self.kind, self.kind.lower())


def _layers(module: Layer[Any] | Linear) -> list[_KerasLayer]:
    if isinstance(module, Linear):
        config = {
            "units": module.out_features, "activation": module.activation or "linear",
            "use_bias": module.bias,
        }  # fmt: skip
        variables = [np.ascontiguousarray(module.parameters["weight"].T)]
        variables += [module.parameters["bias"]] if module.bias else []
        return [_KerasLayer("Dense", config, [variables])]
    if module.proj_size:
        raise ValueError(f"this LSTM has proj_size={module.proj_size}, and Keras has no projection")
    kind = next((name for name, (known, _) in KINDS.items() if isinstance(module, known)), None)
    if kind is None:
        raise ValueError(f"Keras has no {module.kind}")
    config = {
        "units": module.hidden_size, "use_bias": module.bias, "return_sequences": True,
        "activation": module.nonlinearity if isinstance(module, RNN) else "tanh",
    }  # fmt: skip
    if not isinstance(module, RNN):
        config["recurrent_activation"] = "sigmoid"
    if isinstance(module, GRU):
        config["reset_after"] = module.reset_after
    made = []
    for k in range(module.num_layers):
        variables_of = [_variables(module, suffix) for suffix in module._suffixes(k)]
        made.append(_KerasLayer(kind, config, variables_of))
    return made


def _variables(module: Layer[Any], suffix: str) -> list[Array]:
    gates = len(module._cell.gates)

    def of(name: str) -> Array:
        return to_format("keras", module.parameters[name + suffix], gates)

    found = [np.ascontiguousarray(of(name).T) for name in ("weight_ih", "weight_hh")]
    if module.bias:
        rows = of("bias_ih"), of("bias_hh")
        after = isinstance(module, GRU) and module.reset_after
        found.append(np.stack(rows) if after else rows[0] + rows[1])
    return found


def _named(layers: list[_KerasLayer]) -> list[tuple[str, _KerasLayer]]:
    """Layers and the names that Keras gives them."""
    counts: dict[str, int] = {}
    found = []
    for layer in layers:
        number = counts.get(layer.snake, 0)
        counts[layer.snake] = number + 1
        found.append((f"{layer.snake}_{number}" if number else layer.snake, layer))
    return found


def _hdf5(layers: list[_KerasLayer]) -> bytes:
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, layer in _named(layers):
            both = ("forward_layer", "backward_layer") if len(layer.variables) > 1 else ("",)
            for part, variables in zip(both, layer.variables, strict=True):
                cell = "" if layer.kind == "Dense" else "cell"
                group = file.create_group("/".join(filter(None, ("layers", name, part, cell))))
                own = group.create_group("vars")
                own.attrs["name"] = f"{layer.kind.lower()}_cell" if cell else name
                for k, array in enumerate(variables):
                    own[str(k)] = array
    return data.getvalue()


def _serialized(kind: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def _config(layers: list[_KerasLayer], width: int, dtype: str) -> dict[str, Any]:
    policy = _serialized("DTypePolicy", {"name": dtype}, "keras")
    first = {"batch_shape": [None, None, width], "dtype": dtype, "name": "input_layer"}
    made = [_serialized("InputLayer", first)]
    for name, layer in _named(layers):
        config = {"name": name, "trainable": True, "dtype": policy, **layer.config}
        shape = {"input_shape": [None, None, width]}
        if len(layer.variables) > 1:
            parts = [
                _serialized(layer.kind, {**config, "name": f"{word}_{name}", "go_backwards": back})
                for word, back in (("forward", False), ("backward", True))
            ]
            config = {
                "name": name, "trainable": True, "dtype": policy, "merge_mode": "concat",
                "layer": parts[0], "backward_layer": parts[1],
            }  # fmt: skip
        kind = "Bidirectional" if len(layer.variables) > 1 else layer.kind
        made.append({**_serialized(kind, config), "build_config": shape})
        width = layer.config["units"] * len(layer.variables)
    inner = {"name": "sequential", "trainable": True, "dtype": policy, "layers": made}
    return _serialized("Sequential", inner, "keras")


def _archive(config: dict[str, Any], weights: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in (
            (
                METADATA,
                json.dumps({"keras_version": _VERSION, "date_saved": "1980-01-01@00:00:00"}),
            ),
            (CONFIG, json.dumps(config)),
            (WEIGHTS, weights),
        ):
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return data.getvalue()
