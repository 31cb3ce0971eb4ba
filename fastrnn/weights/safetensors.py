"""fastrnn's own file: safetensors, with the configuration in the metadata (`description.py`).

The tensors stand under their names in `state_dict`. Other files of the format are read, too,
where their names are torch's (`torch.py`) or Haste's (`haste.py`). BF16 becomes float32.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.check import Array
from fastrnn.parameters import Named
from fastrnn.weights.description import KEY, Description, describe
from fastrnn.weights.paths import path_of
from fastrnn_kernels.files import write_whole

#: What tensors are read of, by safetensors' names.
_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def save(module: Named, path: str | os.PathLike[str]) -> None:
    """Write a module; the file appears whole or not at all."""
    metadata = {KEY: describe(module)}  # which raises for what is no module
    write(module.state_dict(), path, metadata)


def write(
    tensors: Mapping[str, Array],
    path: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write arrays by name."""
    from safetensors.numpy import save as serialize

    write_whole(path_of(path), serialize(dict(tensors), metadata))


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """Read the model of a file, for a device.

    prefix: of a state dict of torch's, that of the names to take; all if empty.

    Raises OSError if the file cannot be read, ValueError if it is cut short, is no
    safetensors file, holds no model, or does not fit its own description, or if a tensor is of
    a type that NumPy has not.
    """
    from fastrnn.weights import haste, torch

    metadata, tensors = _read(path, prefix)
    if prefix and KEY in metadata:
        raise ValueError(f"prefix is {prefix!r}, and {path!r} holds a whole model of fastrnn's")
    if KEY in metadata:
        return Description(path, metadata[KEY]).restored(device, tensors)
    if haste.is_one(tensors):
        return haste.from_arrays(path, tensors, device)
    if prefix or torch.is_one(tensors):
        return torch.from_arrays(path, tensors, device, prefix)
    raise ValueError(
        f"file {path!r} holds no model of fastrnn: its metadata has no {KEY!r}, and its names are "
        "neither torch's nor Haste's"
    )


def _read(path: str, prefix: str) -> tuple[dict[str, str], dict[str, Array]]:
    """A file's metadata, and the tensors whose names begin so."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # safetensors' own error for this does not say which file
        pass
    try:
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            types = {name: file.get_slice(name).get_dtype() for name in names}
            for name, kind in types.items():
                if kind not in _TYPES:
                    raise ValueError(
                        f"file {path!r}: {name} is of {kind}, wanted one of {', '.join(_TYPES)}"
                    )
            tensors = {
                name: _bfloat16(path, name) if kind == "BF16" else file.get_tensor(name)
                for name, kind in types.items()
            }
            return file.metadata() or {}, tensors
    except (SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"file {path!r} is no whole safetensors file: {error}") from None


def _bfloat16(path: str, name: str) -> Array:
    """A tensor of BF16, which NumPy has not, as float32; of a file that safetensors has checked."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + size + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
