"""Modules from a state dict: recurrent and linear ones, told apart by their names and shapes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files.errors import MisfitError
from fastrnn.models.cells import RecurrentCell
from fastrnn.models.classes import class_of
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.sequential import Sequential
from fastrnn_kernels import handlers
from fastrnn_kernels.cells import registry


def modules_of(model: Any) -> Sequence[Layer[Any] | Linear]:
    """A Sequential's modules, or the one that a model is; raises TypeError for what is neither."""
    if isinstance(model, Sequential):
        return model.modules
    if not isinstance(model, Layer | Linear):
        wanted = ", ".join(registry.kinds())
        raise TypeError(f"model is a {type(model).__name__}, wanted {wanted}, Linear or Sequential")
    return (model,)


def is_one(names: Any) -> bool:
    """Whether some of the names are those of a recurrent layer or cell of torch's."""
    return any(name.rpartition(".")[2] in ("weight_ih_l0", "weight_ih") for name in names)


def config_of(
    kind: type[Layer[Any]], width: int, H: int, layers: int, bias: bool, device: str
) -> dict[str, Any]:
    """A layer's configuration, float32 and in one direction, with the usual cell of its kind."""
    sizes = {"input_size": width, "hidden_size": H, "num_layers": layers}
    return {**kind._arguments(), **sizes, "bias": bias, "device": device}


def linear_config(
    inputs: int, outputs: int, bias: bool, activation: str | None, device: str, dtype: str
) -> dict[str, Any]:
    """Of a linear layer."""
    return {
        "in_features": inputs, "out_features": outputs, "bias": bias, "activation": activation,
        "device": device, "dtype": dtype,
    }  # fmt: skip


def float_array(where: str, value: Any) -> Array:
    """Numbers as an array of float32, or of float64 where they are that."""
    _check_numbers(where, value)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "fiu":
        raise MisfitError(f"{where} is no array of numbers")
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)


def _check_numbers(where: str, value: Any) -> None:
    """Raise MisfitError for lists of anything but numbers, before NumPy makes a type that fits.

    As long as the longest text, for each: a small file of texts would ask for gigabytes.
    """
    todo = [value] if isinstance(value, list) else []
    while todo:
        one = todo.pop()
        kinds = set(map(type, one))
        if kinds == {list}:
            todo += one
        elif not kinds <= {int, float}:
            raise MisfitError(f"{where} is no array of numbers")


def from_state_dict(
    found: Mapping[str, Any], device: str, arrays: Callable[[str, Any], Array] = float_array
) -> Any:
    """A Sequential of the modules of a state dict, in order; or its one cell.

    arrays: makes an array of what stands under a name. A state dict says nothing about how its
    modules are joined: each is taken behind the one before, without an activation between them,
    and an RNN is taken for one of tanh.
    """
    modules: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        prefix, _, rest = name.rpartition(".")
        modules.setdefault(prefix, {})[rest] = value
    made = [_module(prefix, values, device, arrays) for prefix, values in modules.items()]
    if not made:
        raise MisfitError("it holds neither layers nor a state dict")
    if len(made) == 1 and isinstance(made[0], RecurrentCell):
        return made[0]
    try:
        return Sequential(*made)
    except (TypeError, ValueError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"its modules {', '.join(modules)} do not fit: {error}") from None


def _module(
    prefix: str, values: dict[str, Any], device: str, arrays: Callable[[str, Any], Array]
) -> Any:
    where = prefix or "the module"
    own = {name: arrays(f"{where}.{name}", value) for name, value in values.items()}
    dtypes = {str(array.dtype) for array in own.values()}
    if len(dtypes) > 1:
        raise MisfitError(f"{where} has values of {' and '.join(sorted(dtypes))}, wanted one type")
    dtype = dtypes.pop()
    if set(own) <= {"weight", "bias"} and "weight" in own:
        shape = own["weight"].shape
        if len(shape) != 2 or 0 in shape:
            raise MisfitError(f"{where}.weight has shape {shape}, wanted that of a linear layer")
        config = linear_config(shape[1], shape[0], "bias" in own, None, device, dtype)
        kind: Any = Linear
    elif "weight_ih_l0" in own and "weight_hh_l0" in own:
        kind, config = _recurrent(where, own, device)
        config["dtype"] = dtype
    elif "weight_ih" in own and "weight_hh" in own:
        kind, config = _cell(where, own, device)
        config["dtype"] = dtype
    else:
        raise MisfitError(f"{where} is of an unknown type: it has {', '.join(sorted(values))}")
    try:
        return kind._restored(config, own)  # which checks the shapes
    except (TypeError, ValueError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"{where}: {error}") from None


def _cell(where: str, own: dict[str, Array], device: str) -> tuple[Any, dict[str, Any]]:
    layer = {f"{name}_l0": array for name, array in own.items()}
    kind, common = _recurrent(where, layer, device)
    step = class_of(f"{kind.kind}Cell")
    return step, {name: value for name, value in common.items() if name in step._arguments()}


def _recurrent(where: str, own: dict[str, Array], device: str) -> tuple[Any, dict[str, Any]]:
    rows, width = (*own["weight_ih_l0"].shape, 0, 0)[:2]
    hidden = (*own["weight_hh_l0"].shape, 0, 0)[1]
    projection = own.get("weight_hr_l0")
    if projection is not None:  # h is narrower than the gates
        hidden = (*projection.shape, 0, 0)[1]
    gates = rows // hidden if hidden and rows % hidden == 0 else 0
    known = (one for one in registry.CELLS.values() if one.torch and len(one.cell.gates) == gates)
    kinds: list[Any] = [class_of(one.kind) for one in known]
    kind = kinds[0] if kinds else None
    projects = kind is not None and "proj_size" in kind._arguments()
    if kind is None or width < 1 or (projection is not None and not projects):
        raise MisfitError(f"{where}.weight_ih_l0 and weight_hh_l0 are those of no RNN, GRU or LSTM")
    both = "weight_ih_l0_reverse" in own
    layers = sum(name.startswith("weight_ih_l") for name in own) // (1 + both)
    config = config_of(kind, width, hidden, layers, "bias_ih_l0" in own, device)
    config["bidirectional"] = both
    if projection is not None:
        config["proj_size"] = len(projection)
    return kind, config
