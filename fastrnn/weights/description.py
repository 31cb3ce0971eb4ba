"""What a model is, as JSON beside its weights: in fastrnn's own files, and in others of its own.

{"format": 1, "class": "LSTM", "config": {...}}
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from fastrnn.parameters import Module, Named
from fastrnn.sequential import Sequential, classes

#: The name under which a file's metadata hold it.
KEY = "fastrnn"
_FORMAT = 1


def _classes() -> dict[str, type[Module | Sequential]]:
    """The classes that a file may name."""
    return {**classes(), "Sequential": Sequential}


def describe(module: Named) -> str:
    """The description of a module; raises TypeError for another object."""
    kind = next((name for name, known in _classes().items() if isinstance(module, known)), None)
    if kind is None:
        raise TypeError(f"{type(module).__name__} is no module of fastrnn")
    config = {name: value for name, value in module.config().items() if name != "device"}
    return json.dumps({"format": _FORMAT, "class": kind, "config": config})


class Description:
    """A description that a file holds, and the module that it makes of values.

    Raises ValueError that names the file for one that is broken or of another version.
    """

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        try:
            description = json.loads(text)
            number, name, config = (description[key] for key in ("format", "class", "config"))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"file {path!r} has a broken description: {error!r}") from None
        if number != _FORMAT:
            raise ValueError(f"file {path!r} has format {number!r}, this version reads {_FORMAT}")
        kind = _classes().get(name) if isinstance(name, str) else None
        if kind is None or not isinstance(config, dict):
            raise ValueError(f"file {path!r} describes no class of fastrnn: {name!r}")
        self.kind: type[Module | Sequential] = kind
        self.config: dict[str, Any] = config

    def check_layers(self, tensors: Collection[Any]) -> None:
        """Raise ValueError for more layers than the file has tensors."""
        modules = self.config.get("modules")
        layers = self.config.get("num_layers", len(modules) if isinstance(modules, list) else 1)
        if not isinstance(layers, int) or layers > len(tensors):
            raise ValueError(
                f"file {self._path!r} has num_layers={layers!r} and {len(tensors)} tensors"
            )

    def restored(self, device: str, tensors: Mapping[str, Any]) -> Any:
        """The module, with its parameters by name."""
        self.check_layers(tensors)
        try:
            return self.kind._restored({**self.config, "device": device}, tensors)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"file {self._path!r} does not fit its description: {error}") from None
