"""fastrnn's own file: safetensors, with the configuration in the metadata.

The tensors stand under their names in `state_dict`; the metadata's entry `fastrnn` is
JSON: `{"format": 1, "class": "LSTM", "config": {...}}`.
"""

import json
import os
import tempfile
from typing import Any

from fastrnn.parameters import Recurrent

_KEY = "fastrnn"
_FORMAT = 1


def _classes() -> dict[str, type[Recurrent]]:
    """The classes that a file may name."""
    from fastrnn import cells, layers

    kinds: list[type[Recurrent]] = [layers.RNN, layers.LSTM, layers.GRU]
    kinds += [cells.RNNCell, cells.LSTMCell, cells.GRUCell]
    return {kind.__name__: kind for kind in kinds}


def save(module: Recurrent, path: str | os.PathLike[str]) -> None:
    """Write a layer or a cell; the file appears whole or not at all."""
    from safetensors.numpy import save as serialize

    kind = next((name for name, known in _classes().items() if isinstance(module, known)), None)
    if kind is None:
        raise TypeError(f"{type(module).__name__} is no layer or cell of fastrnn")
    description = {"format": _FORMAT, "class": kind, "config": module.config()}
    data = serialize(module.state_dict(), {_KEY: json.dumps(description)})
    path = os.fspath(path)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", suffix=".safetensors")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mode = 0o666 & ~_umask()
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load(path: str | os.PathLike[str]) -> Any:
    """Read the layer or cell that `save` wrote.

    Raises FileNotFoundError or another OSError if the file cannot be read, ValueError if
    it is cut short, is no safetensors file, holds no model of fastrnn, or does not fit
    its own description.
    """
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
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
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"file {path!r} has a broken description: {error!r}") from None
    if number != _FORMAT:
        raise ValueError(f"file {path!r} has format {number!r}, this version reads {_FORMAT}")
    kind = _classes().get(name) if isinstance(name, str) else None
    if kind is None or not isinstance(config, dict):
        raise ValueError(f"file {path!r} describes no class of fastrnn: {name!r}")
    layers = config.get("num_layers", 1)
    if not isinstance(layers, int) or layers > len(tensors):
        raise ValueError(f"file {path!r} has num_layers={layers!r} and {len(tensors)} tensors")
    try:
        return kind._restored(config, tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"file {path!r} does not fit its description: {error}") from None
