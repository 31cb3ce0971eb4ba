"""PyTorch's state dicts, as torch.save wrote them, or in safetensors."""

import io
import os
from collections.abc import Callable, Mapping
from typing import Any

from fastrnn.arrays import Array
from fastrnn.files import budget, checkpoint, safetensors
from fastrnn.files.checkpoint import Foreign, Tensor
from fastrnn.files.errors import MisfitError
from fastrnn.files.paths import path_of
from fastrnn.models.cells import GRUCell, RecurrentCell
from fastrnn.models.layer import Layer
from fastrnn.models.layers import GRU
from fastrnn.models.linear import Linear
from fastrnn.models.sequential import Sequential
from fastrnn.weights import modules
from fastrnn.weights.contents import Part
from fastrnn.weights.state_dict import check_usual, float_array, is_one
from fastrnn_kernels.cache.files import write_whole
from fastrnn_kernels.cells.registry import CELLS

__all__ = ["contents", "from_arrays", "is_one", "load", "parts_of", "save", "state_dict"]


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """The layer of a state dict that has one, else a Sequential of its modules in order.

    prefix: the path of the module to take, through the dictionaries of a checkpoint too; all if
    empty. A state dict tells shapes alone: an RNN is taken for one of tanh, inputs for time first.

    Nothing in the file is executed; what it names is left out, and told to the logger "fastrnn".
    Raises OSError if it cannot be read, ValueError if it holds no weights, or modules that are
    neither recurrent nor linear; the message has the prefixes that would do.
    """
    found = _read(path)
    return _answer(path, lambda: modules.load(path, found, device, prefix, _values))


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds: its modules, by the prefixes that `load` takes."""
    read = _read(path)
    found: list[Part] = _answer(path, lambda: modules.contents(read, device, _values))
    return found


def _answer(path: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from None


def _read(path: str) -> Mapping[Any, Any]:
    data, room = budget.read(path)
    try:
        found = checkpoint.read(data, room)
    except MisfitError as error:
        raise ValueError(f"file {path!r} holds no weights alone: {error}") from error.__cause__
    if isinstance(found, Foreign):
        raise ValueError(f"file {path!r} holds no weights alone: it is {modules.told(found)}")
    if not isinstance(found, Mapping):
        raise ValueError(f"file {path!r} holds a {type(found).__name__}, wanted a state dict")
    return found


def _values(where: str, value: Any) -> Array:
    """The values of a tensor of a state dict."""
    if isinstance(value, Foreign):
        raise modules.ForeignError(f"{where} is {modules.told(value)}")
    if not isinstance(value, Tensor):
        raise MisfitError(f"{where} is a {type(value).__name__}, wanted a tensor")
    if not value.is_float:
        raise MisfitError(f"{where} is of torch's type {value.kind}, wanted a tensor of floats")
    return float_array(where, value.array(where))


def from_arrays(path: str, arrays: Mapping[str, Array], device: str, prefix: str = "") -> Any:
    """The same of a state dict of arrays."""
    return _answer(path, lambda: modules.load(path, arrays, device, prefix, float_array))


def parts_of(path: str, arrays: Mapping[str, Array], device: str) -> list[Part]:
    """The modules among arrays by name."""
    found: list[Part] = _answer(path, lambda: modules.contents(arrays, device, float_array))
    return found


def state_dict(model: Layer[Any] | RecurrentCell[Any] | Linear | Sequential) -> dict[str, Array]:
    """The arrays of a model under torch's names.

    Raises TypeError for what is no such model, ValueError for a GRU that torch has not.
    """
    if not isinstance(model, Layer | RecurrentCell | Linear | Sequential):
        raise TypeError(f"model is a {type(model).__name__}, wanted a layer, cell or Sequential")
    own = model.modules if isinstance(model, Sequential) else (model,)
    if any(isinstance(module, GRU | GRUCell) and not module.reset_after for module in own):
        raise ValueError("torch has no GRU that resets before the product")
    for module in own:
        check_usual(module)
    in_torch = [entry.cell for entry in CELLS.values() if entry.torch]
    for module in own:
        if isinstance(module, Layer | RecurrentCell) and module._cell not in in_torch:
            raise ValueError(f"torch has no {module.kind}")
    return model.state_dict()


def save(
    model: Layer[Any] | RecurrentCell[Any] | Linear | Sequential, path: str | os.PathLike[str]
) -> None:
    """Write a model's state dict by torch.save, or to a .safetensors file.

    It holds parameters alone: no activations, no order of axes.
    """
    import torch

    if path_of(path).suffix.lower() == ".safetensors":
        safetensors.write(state_dict(model), path)
        return
    tensors = {name: torch.from_numpy(value) for name, value in state_dict(model).items()}
    data = io.BytesIO()
    torch.save(tensors, data)
    write_whole(path_of(path), data.getvalue())
