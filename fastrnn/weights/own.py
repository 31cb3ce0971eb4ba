"""fastrnn's own file: safetensors, with the model's class and configuration in the metadata.

The tensors stand under their names in `state_dict`. Other files of the format are read, too,
where their names are torch's (`torch.py`) or Haste's (`haste.py`).
"""

import os
from collections.abc import Mapping
from typing import Any

from fastrnn.files import safetensors
from fastrnn.files.description import KEY, described
from fastrnn.models.classes import class_of
from fastrnn.models.linear import Linear
from fastrnn.models.module import Module, Named
from fastrnn.models.sequential import Sequential
from fastrnn.weights import haste, torch
from fastrnn_kernels import handlers


def save(model: Named, path: str | os.PathLike[str]) -> None:
    """Write a model; the file appears whole or not at all."""
    if not isinstance(model, Named):
        raise TypeError(f"{type(model).__name__} is no module of fastrnn")
    model.save_own(path)


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """Read the model of a file, for a device.

    prefix: of a state dict of torch's, that of the names to take; all if empty.

    Raises OSError if the file cannot be read, ValueError if it is cut short, is no
    safetensors file, holds no model, or does not fit its own description, or if a tensor is of
    a type that NumPy has not.
    """
    metadata, tensors = safetensors.read(path, prefix)
    if prefix and KEY in metadata:
        raise ValueError(f"prefix is {prefix!r}, and {path!r} holds a whole model of fastrnn's")
    if KEY in metadata:
        return restored(path, metadata[KEY], device, tensors)
    if haste.is_one(tensors):
        return haste.from_arrays(path, tensors, device)
    if prefix or torch.is_one(tensors):
        return torch.from_arrays(path, tensors, device, prefix)
    raise ValueError(
        f"file {path!r} holds no model of fastrnn: its metadata has no {KEY!r}, and its names are "
        "neither torch's nor Haste's"
    )


def restored(path: str, text: str, device: str, tensors: Mapping[str, Any]) -> Any:
    """The model that a description makes of parameters by name.

    Raises ValueError that names the file where the description is broken, or does not fit them.
    """
    name, config = described(path, text)
    try:
        kind = None if name == Sequential.kind else _class_of(name)
    except KeyError:
        raise ValueError(f"file {path!r} describes no class of fastrnn: {name!r}") from None
    modules = config.get("modules")
    layers = config.get("num_layers", len(modules) if isinstance(modules, list) else 1)
    if not isinstance(layers, int) or layers > len(tensors):
        raise ValueError(f"file {path!r} has num_layers={layers!r} and {len(tensors)} tensors")
    try:
        if kind is None:
            return _sequential(config, device, tensors)
        return kind._restored({**config, "device": device}, tensors)
    except (TypeError, ValueError, KeyError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r} does not fit its description: {error}") from None


def _class_of(name: str) -> type[Module]:
    """The class that a file names; KeyError if there is none."""
    return Linear if name == Linear.kind else class_of(name)


def _sequential(config: Mapping[str, Any], device: str, values: Mapping[str, Any]) -> Sequential:
    """A Sequential, whose parameters have the number of their module before their name."""
    modules: list[Any] = []
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        number, _, rest = name.partition(".")
        parts.setdefault(number, {})[rest] = value
    for k, part in enumerate(config["modules"]):
        own = parts.get(str(k), {})
        kind = _class_of(part["class"])
        modules.append(kind._restored({**part["config"], "device": device}, own))
    numbers = set(map(str, range(len(modules))))
    unknown = [name for name in values if name.partition(".")[0] not in numbers]
    if unknown:
        raise ValueError(f"holds unknown {', '.join(unknown)}")
    return Sequential(*modules)
