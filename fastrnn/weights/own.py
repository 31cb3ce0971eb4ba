"""fastrnn's own file: safetensors, with the model's class and configuration in the metadata.

The tensors stand under their names in `state_dict`. Other files of the format are read, too,
where their names are torch's (`torch.py`) or Haste's (`haste.py`).
"""

import os
from collections.abc import Mapping
from typing import Any

from fastrnn.files import safetensors
from fastrnn.files.description import KEY, described
from fastrnn.models.attention import Attention
from fastrnn.models.classes import class_of
from fastrnn.models.dropout import Dropout
from fastrnn.models.embedding import Embedding
from fastrnn.models.ensemble import Ensemble
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.module import Module, Named
from fastrnn.models.pool import Pool
from fastrnn.models.sequential import Sequential
from fastrnn.weights import haste, torch
from fastrnn.weights.contents import Part, shapes_of, with_listing
from fastrnn_kernels import handlers

#: Classes of modules that are not recurrent, by what files call them.
_PARTS: dict[str, type[Module]] = {
    one.kind: one for one in (Linear, Embedding, Dropout, Pool, Attention)
}


def save(model: Named, path: str | os.PathLike[str]) -> None:
    """Write a model; the file appears whole or not at all."""
    if not isinstance(model, Named):
        raise TypeError(f"{type(model).__name__} is no module of fastrnn")
    model.save_own(path)


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """Read the model of a file, for a device.

    prefix: of a Sequential, a module's number; of a state dict of torch's, or of several in
    Haste's layout, the path of the names to take. All if empty.

    Raises OSError if the file cannot be read, ValueError if it is cut short, is no
    safetensors file, holds no model, or does not fit its own description, or if a tensor is of
    a type that NumPy has not.
    """
    begin = f"{prefix}." if prefix else ""
    metadata, tensors = safetensors.read(path, begin)
    if KEY in metadata:
        return _of_own(path, metadata[KEY], device, prefix, tensors)
    rest = {name.removeprefix(begin): value for name, value in tensors.items()}
    if haste.is_one(rest):
        return haste.from_arrays(path, rest, device)
    if prefix and not tensors:  # for the prefixes that there are
        tensors = safetensors.read(path, "")[1]
    if prefix or torch.is_one(tensors):
        return torch.from_arrays(path, tensors, device, prefix)
    message = (
        f"file {path!r} holds no model of fastrnn: its metadata has no {KEY!r}, and its names are "
        "neither torch's nor Haste's"
    )
    raise ValueError(with_listing(message, torch.parts_of(path, tensors, device)))


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds, by the prefixes that `load` takes."""
    metadata, tensors = safetensors.read(path, "")
    if KEY in metadata:
        return parts_of(restored(path, metadata[KEY], device, tensors))
    if haste.is_one(tensors):
        return parts_of(haste.from_arrays(path, tensors, device))
    return torch.parts_of(path, tensors, device)


def _of_own(path: str, text: str, device: str, prefix: str, tensors: Mapping[str, Any]) -> Any:
    if not prefix:
        return restored(path, text, device, tensors)
    whole = restored(path, text, device, safetensors.read(path, "")[1])
    module = module_of(whole, prefix)
    if module is None:
        raise ValueError(
            with_listing(
                f"prefix is '{prefix}.', and {path!r} holds a whole model of fastrnn's",
                parts_of(whole) if isinstance(whole, Sequential | Ensemble) else [],
            )
        )
    return module


def restored(path: str, text: str, device: str, tensors: Mapping[str, Any]) -> Any:
    """The model that a description makes of parameters by name.

    Raises ValueError that names the file where the description is broken, or does not fit them.
    """
    name, config = described(path, text)
    try:
        several = name in (Sequential.kind, Ensemble.kind)
        kind = None if several else _class_of(name, config)
    except ValueError as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r} {error}") from None
    layers = config.get("num_layers", 1)
    if not isinstance(layers, int) or layers > len(tensors):
        raise ValueError(f"file {path!r} has num_layers={layers!r} and {len(tensors)} tensors")
    try:
        if name == Ensemble.kind:
            return _ensemble(config, device, tensors)
        if kind is None:
            return _sequential(config, device, tensors)
        return kind._restored({**config, "device": device}, tensors)
    except (TypeError, ValueError, KeyError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r} does not fit its description: {error}") from None


def module_of(model: Any, prefix: str) -> Any:
    """A module of a Sequential, or a model of an Ensemble, by its number, or None."""
    if isinstance(model, Sequential) and prefix in map(str, range(len(model.modules))):
        return model.modules[int(prefix)]
    if isinstance(model, Ensemble) and prefix in map(str, range(model.models)):
        return model.member(int(prefix))
    return None


def parts_of(model: Any) -> list[Part]:
    """A model as the parts of a file: modules of a Sequential, and models, go by their numbers."""
    if isinstance(model, Ensemble):
        members = map(model.member, range(model.models))
        return [Part(str(m), shapes_of(one.parameters), one) for m, one in enumerate(members)]
    if not isinstance(model, Sequential):
        return [Part("", shapes_of(model.parameters), model)]
    return [
        Part(str(k), shapes_of(module.parameters), module) for k, module in enumerate(model.modules)
    ]


def _class_of(name: str, config: Mapping[str, Any]) -> type[Module]:
    """The class that a file names; ValueError if there is none."""
    try:
        return _PARTS.get(name) or class_of(name)
    except KeyError:
        remedy = ""
        if "equations" in config:
            remedy = (
                f", a cell that some program has defined: import the module that defines {name} "
                "by @fastrnn.cell first"
            )
        raise ValueError(f"describes no class of fastrnn: {name!r}{remedy}") from None


def _ensemble(config: Mapping[str, Any], device: str, values: Mapping[str, Any]) -> Ensemble[Any]:
    """An Ensemble of layers of a class."""
    inner = config["config"]
    layer = _class_of(config["class"], inner)
    if not issubclass(layer, Layer):
        raise ValueError(f"it is of class {config['class']!r}, wanted layers")
    layers = inner.get("num_layers")
    if not isinstance(layers, int) or layers > len(values):
        raise ValueError(f"it has num_layers={layers!r} and {len(values)} tensors")
    return Ensemble._restored(layer, {**inner, "device": device}, config["models"], values)


def _sequential(config: Mapping[str, Any], device: str, values: Mapping[str, Any]) -> Sequential:
    """A Sequential, whose parameters have the number of their module before their name."""
    modules: list[Any] = []
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        number, _, rest = name.partition(".")
        parts.setdefault(number, {})[rest] = value
    for k, part in enumerate(config["modules"]):
        own = parts.get(str(k), {})
        kind = _class_of(part["class"], part["config"])
        modules.append(kind._restored({**part["config"], "device": device}, own))
    numbers = set(map(str, range(len(modules))))
    unknown = [name for name in values if name.partition(".")[0] not in numbers]
    if unknown:
        raise ValueError(f"holds unknown {', '.join(unknown)}")
    return Sequential(*modules)
