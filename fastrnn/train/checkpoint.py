"""A training in a file: to go on from there, to the same bits."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.files import safetensors
from fastrnn_kernels import handlers

_TRAINING = "fastrnn training"


def save(path: str | os.PathLike[str], run: Any) -> None:
    """Write all that a training goes on from; the file appears whole or not at all."""
    arrays = {f"best/{name}": value for name, value in run.best.items()}
    arrays |= {f"now/{name}": value for name, value in run.model.parameters.items()}
    arrays |= {f"optimizer/{k}": value for k, value in run.optimizer.state_dict().items()}
    told = {
        "model": run.model.description(),
        "optimizer": type(run.optimizer).__name__,
        "rng": run.rng.bit_generator.state,
        "history": run.history.as_dict(),
    }
    safetensors.write(arrays, path, {_TRAINING: json.dumps(told, default=_plain)})


def load(path: Path, run: Any) -> None:
    """Take up a training where a file has it; ValueError that names it where it does not fit."""
    metadata, arrays = safetensors.read(str(path), "")
    if _TRAINING not in metadata:
        raise ValueError(f"checkpoint {str(path)!r} holds no training: wanted another file's name")
    try:
        told = json.loads(metadata[_TRAINING])
        if told["model"] != run.model.description():
            raise ValueError(f"it is of another model than {run.model!r}")
        if told["optimizer"] != type(run.optimizer).__name__:
            raise ValueError(f"it was trained with {told['optimizer']}")
        kinds: dict[str, dict[str, Any]] = {"best": {}, "now": {}, "optimizer": {}}
        for name, value in arrays.items():
            kind, _, rest = name.partition("/")
            kinds[kind][rest] = value
        generator = np.random.default_rng()
        generator.bit_generator.state = told["rng"]
        history = type(run.history)(**told["history"])
        before = run.model.state_dict()
        run.model.load_state_dict(kinds["best"])
        run.best = dict(run.model.parameters)
        try:
            run.model.load_state_dict(kinds["now"])
            run.optimizer.load_state_dict(kinds["optimizer"])
        except BaseException:
            run.model.load_state_dict(before)
            raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        handlers.pass_on(error)
        raise ValueError(f"checkpoint {str(path)!r} cannot be taken up: {error}") from None
    run.rng.bit_generator.state = told["rng"]
    run.history = history


def _plain(value: Any) -> Any:
    """What JSON has not: NumPy's numbers and arrays, which states of generators hold."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is nothing that a checkpoint keeps")
