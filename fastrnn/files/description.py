"""What a model is, as JSON beside its weights: in fastrnn's own files, and in others of its own.

{"format": 1, "class": "LSTM", "config": {...}}
"""

import json
from collections.abc import Mapping
from typing import Any

from fastrnn_kernels import handlers

#: The name under which a file's metadata hold it.
KEY = "fastrnn"
_FORMAT = 1


def describe(kind: str, config: Mapping[str, Any]) -> str:
    """The description of a model of a class, on whatever device it is."""
    return json.dumps({"format": _FORMAT, "class": kind, "config": kept(config)})


def kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """What descriptions keep of a configuration."""
    return {name: value for name, value in config.items() if name != "device"}


def described(path: str, text: str) -> tuple[str, dict[str, Any]]:
    """The class and the configuration of a description.

    Raises ValueError that names the file for one that is broken or of another version.
    """
    try:
        description = json.loads(text)
        number, name, config = (description[key] for key in ("format", "class", "config"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r} has a broken description: {error!r}") from None
    if number != _FORMAT:
        raise ValueError(f"file {path!r} has format {number!r}, this version reads {_FORMAT}")
    if not isinstance(name, str) or not isinstance(config, dict):
        raise ValueError(f"file {path!r} describes no class of fastrnn: {name!r}")
    return name, config
