"""Models from and to files: one module for each format."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fastrnn import check
from fastrnn.device import kernels_for
from fastrnn.files import budget
from fastrnn.files.paths import path_of
from fastrnn.files.safetensors import is_one
from fastrnn.models.cells import RecurrentCell
from fastrnn.models.ensemble import Ensemble
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.module import OTHER_FORMATS
from fastrnn.models.sequential import Sequential
from fastrnn.weights.contents import Part

__all__ = ["FORMATS", "load", "save"]

#: What files hold.
Model = Layer[Any] | RecurrentCell[Any] | Linear | Sequential | Ensemble[Any]


@dataclass(frozen=True)
class _Format:
    """A format of files.

    suffixes: how their names end. load, save: "module:function" of what reads and what writes
    them; beside what reads them is `contents`. library: what that needs and fastrnn does not
    bring, a module and the package's name.
    """

    suffixes: tuple[str, ...]
    load: str
    save: str
    library: str = ""


_FORMATS = {
    "fastrnn": _Format((".safetensors",), "fastrnn.weights.own:load", "fastrnn.weights.own:save"),
    "torch": _Format(
        (".pt", ".pth"), "fastrnn.weights.torch:load", "fastrnn.weights.torch:save",
        "torch",
    ),
    "keras": _Format(
        (".keras", ".h5"), "fastrnn.weights.keras:load",
        "fastrnn.weights.keras_write:save", "h5py",
    ),
    "onnx": _Format((".onnx",), "fastrnn.onnx.read:load_model", "fastrnn.onnx.write:save", "onnx"),
    "rtneural": _Format(
        (".json",), "fastrnn.weights.rtneural:load", "fastrnn.weights.rtneural:save"
    ),
    "nam": _Format((".nam",), "fastrnn.weights.nam:load", "fastrnn.weights.nam:save"),
    "haste": _Format((".npz",), "fastrnn.weights.haste:load", "fastrnn.weights.haste:save"),
}  # fmt: skip
FORMATS = tuple(_FORMATS)
_BY_SUFFIX = {suffix: name for name, one in _FORMATS.items() for suffix in one.suffixes}


def load(
    path: str | os.PathLike[str], *, device: str = "auto", prefix: str = "", of: str | None = None
) -> Model:
    """Read a model from a file, for a device.

    The file's name tells its format: `.safetensors` (what was saved, or a state dict of
    torch's, or Haste's layout), `.pt` and `.pth`, `.keras` and `.weights.h5`, `.onnx`, `.json`
    (RTNeural's), `.nam` (NeuralAmpModeler's LSTM), `.npz` (Haste's); of another name, its first
    bytes. The result is a layer where the file has one, else a Sequential, and of fastrnn's own
    files what was saved.

    prefix: of the part to take, where a file has more than one model, or more than fastrnn has:
    of a state dict the path of a module, as in "encoder.lstm"; the name of a layer of Keras's, of
    a node of ONNX's; the number of a module, layer, or model of an Ensemble. Where the whole cannot
    be taken, the error lists the prefixes that can, and so does `fastrnn show`.
    of: the format, where the name does not tell it: one of `fastrnn.weights.FORMATS`.

    Raises FileNotFoundError or another OSError if the file cannot be read, ValueError if
    it is cut short, of another format, or does not fit its own description, RuntimeError
    if the device cannot be used, ImportError where the format's library is not installed.
    """
    kernels_for(device)
    name = str(path_of(path))
    budget.checked(name)
    if of is not None:
        check.choice("of", of, FORMATS)
    found = of or _format(name)
    model: Model = _function(found, _FORMATS[found].load)(name, device, prefix.rstrip("./"))
    return model


def single(model: Model, file: Any) -> Any:
    """The model of a file, for what takes one at a time; raises ValueError for an Ensemble."""
    if isinstance(model, Ensemble):
        raise ValueError(
            f"file {str(file)!r} holds an Ensemble of {model.models} models: take one of them by "
            "its number as the prefix, 0 for the first"
        )
    return model


def contents(
    path: str | os.PathLike[str], *, device: str = "cpu", of: str | None = None
) -> tuple[str, list[Part]]:
    """The format of a file, and what it holds: part by part, also what fastrnn has not.

    Arguments and errors as those of `load`.
    """
    name = str(path_of(path))
    budget.checked(name)
    if of is not None:
        check.choice("of", of, FORMATS)
    found = of or _format(name)
    place = f"{_FORMATS[found].load.partition(':')[0]}:contents"
    return found, _function(found, place)(name, device)


def save(model: Any, path: str | os.PathLike[str], *, to: str | None = None) -> None:
    """Write a layer or a Sequential to a file of some format.

    to: the format, one of `fastrnn.weights.FORMATS`; by the file's name if None.

    Raises ValueError for a name of no known format, and for a model that the format cannot
    hold, TypeError for what is no model, OSError where the file cannot be written, ImportError
    where a library is missing.
    """
    target = path_of(path)
    to = to or format_of(target)
    if to is None:
        raise ValueError(f"path ends in {target.suffix!r}, wanted one of {', '.join(_BY_SUFFIX)}")
    check.choice("to", to, FORMATS)
    _function(to, _FORMATS[to].save)(model, target)


def format_of(path: str | os.PathLike[str]) -> str | None:
    """The format that a file's name tells, or None."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def suffixes_of(name: str) -> tuple[str, ...]:
    """How the names of a format's files end."""
    return _FORMATS[name].suffixes


def _function(name: str, place: str) -> Callable[..., Any]:
    """What stands at a "module:function" of a format."""
    module, _, function = place.partition(":")
    library = _FORMATS[name].library
    if library:
        try:
            import_module(library)
        except ImportError as error:
            raise ImportError(
                f"{name} files need {library}: pip install {library} ({error})"
            ) from None
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def _format(path: str) -> str:
    """The format of a file that is read, by its name or its first bytes."""
    return ("fastrnn" if is_one(path) else format_of(path)) or _by_content(path)


def _by_content(path: str) -> str:
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"\x89HDF"):
        return "keras"
    first = head[30:] if head.startswith(b"PK") else b""  # the name of an archive's first file
    if first.startswith((b"metadata.json", b"config.json")):
        return "keras"
    if b".npy" in first:
        return "haste"
    if head.startswith((b"PK", b"\x80")):  # an archive, or a pickle without one
        return "torch"
    if head.lstrip().startswith(b"{"):
        return "rtneural"
    return "onnx" if head[:1] == b"\x08" and head[8:9] != b"{" else "fastrnn"


def _save_by_name(model: Any, target: Path) -> bool:
    """Write a model as `save`, unless the name tells fastrnn's own format or none."""
    to = format_of(target)
    if to in (None, "fastrnn"):
        return False
    save(model, target, to=to)
    return True


OTHER_FORMATS.append(_save_by_name)


def __dir__() -> list[str]:
    return sorted(__all__)
