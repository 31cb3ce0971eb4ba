"""fastrnn's own file: safetensors, with the configuration in the metadata.

The tensors stand under their names in `state_dict`; the metadata's entry `fastrnn` is
JSON: `{"format": 1, "class": "LSTM", "config": {...}}`.
"""

import json
import os
from pathlib import Path
from typing import Any

from fastrnn.parameters import Module, Named
from fastrnn.sequential import Sequential
from fastrnn_kernels.files import write_whole

_KEY = "fastrnn"
_FORMAT = 1


def _classes() -> dict[str, type[Module | Sequential]]:
    """The classes that a file may name."""
    from fastrnn import sequential

    return {**sequential.classes(), "Sequential": Sequential}


def save(module: Named, path: str | os.PathLike[str]) -> None:
    """Write a module; the file appears whole or not at all."""
    from safetensors.numpy import save as serialize

    kind = next((name for name, known in _classes().items() if isinstance(module, known)), None)
    if kind is None:
        raise TypeError(f"{type(module).__name__} is no module of fastrnn")
    config = {name: value for name, value in module.config().items() if name != "device"}
    description = {"format": _FORMAT, "class": kind, "config": config}
    data = serialize(module.state_dict(), {_KEY: json.dumps(description)})
    write_whole(_path(path), data)


def _path(path: Any) -> Path:
    try:
        return Path(os.fsdecode(path))
    except TypeError:
        raise TypeError(f"path is {path!r}, wanted a path") from None


def load(path: str, device: str = "auto") -> Any:
    """Read the module that `save` wrote, for a device.

    Raises OSError if the file cannot be read, ValueError if it is cut short, is no
    safetensors file, holds no model of fastrnn, or does not fit its own description.
    """
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # safetensors' own error for this does not say which file
        pass
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"file {path!r} is no whole safetensors file: {error}") from None
    if _KEY not in metadata:
        raise ValueError(f"file {path!r} holds no model of fastrnn: its metadata has no {_KEY!r}")
    try:
        description = json.loads(metadata[_KEY])
        number, name, config = (description[key] for key in ("format", "class", "config"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"file {path!r} has a broken description: {error!r}") from None
    if number != _FORMAT:
        raise ValueError(f"file {path!r} has format {number!r}, this version reads {_FORMAT}")
    kind = _classes().get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(config, dict):
        raise ValueError(f"file {path!r} describes no class of fastrnn: {name!r}")
    layers = len(config["modules"]) if isinstance(config.get("modules"), list) else 1
    layers = config.get("num_layers", layers)
    if not isinstance(layers, int) or layers > len(tensors):
        raise ValueError(f"file {path!r} has num_layers={layers!r} and {len(tensors)} tensors")
    try:
        return kind._restored({**config, "device": device}, tensors)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"file {path!r} does not fit its description: {error}") from None
