"""fastrnn's own file: safetensors, with the configuration in the metadata (`description.py`).

The tensors stand under their names in `state_dict`. Other files of the format are read, too,
where their names are torch's (`torch.py`) or Haste's (`haste.py`).
"""

import os
from collections.abc import Mapping
from typing import Any

from fastrnn.check import Array
from fastrnn.parameters import Named
from fastrnn.weights.description import KEY, Description, describe
from fastrnn.weights.paths import path_of
from fastrnn_kernels.files import write_whole


def save(module: Named, path: str | os.PathLike[str]) -> None:
    """Write a module; the file appears whole or not at all."""
    write(module.state_dict(), path, {KEY: describe(module)})


def write(
    tensors: Mapping[str, Array],
    path: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write arrays by name."""
    from safetensors.numpy import save as serialize

    write_whole(path_of(path), serialize(dict(tensors), metadata))


def load(path: str, device: str = "auto") -> Any:
    """Read the model of a file, for a device.

    Raises OSError if the file cannot be read, ValueError if it is cut short, is no
    safetensors file, holds no model, or does not fit its own description.
    """
    from safetensors import SafetensorError, safe_open

    from fastrnn.weights import haste, torch

    with open(path, "rb"):  # safetensors' own error for this does not say which file
        pass
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"file {path!r} is no whole safetensors file: {error}") from None
    if KEY in metadata:
        return Description(path, metadata[KEY]).restored(device, tensors)
    if haste.is_one(tensors):
        return haste.from_arrays(path, tensors, device)
    if torch.is_one(tensors):
        return torch.from_arrays(path, tensors, device)
    raise ValueError(
        f"file {path!r} holds no model of fastrnn: its metadata has no {KEY!r}, and its names are "
        "neither torch's nor Haste's"
    )
