"""Modules from a state dict: recurrent and linear ones, told apart by their names and shapes."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files.errors import MisfitError
from fastrnn.models.cells import RecurrentCell
from fastrnn.models.classes import class_of
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.part import Part
from fastrnn.models.recurrent import Recurrent
from fastrnn.models.regularised import IN_TRAINING
from fastrnn.models.sequential import Sequential
from fastrnn_kernels import handlers
from fastrnn_kernels.cells import registry


def modules_of(model: Any, known: Collection[str] = ()) -> Sequence[Layer[Any] | Linear]:
    """A Sequential's modules, or the one that a model is, for formats of others.

    known: names of choices (`Recurrent._chosen`) that a format has a place for.

    Raises TypeError for what is neither, ValueError for what has been chosen that is not usual,
    which they have no place for.
    """
    if isinstance(model, Sequential):
        for module in model.modules:
            check_usual(module, known)
        return [module for module in model.modules if not isinstance(module, Part)]
    if not isinstance(model, Layer | Linear):
        wanted = ", ".join(registry.kinds())
        raise TypeError(f"model is a {type(model).__name__}, wanted {wanted}, Linear or Sequential")
    check_usual(model, known)
    return (model,)


def check_usual(module: Any, known: Collection[str] = ()) -> None:
    """Raise ValueError for a module that computes more than those of others."""
    if isinstance(module, Part):
        raise ValueError(
            f"a {module.kind} is kept in fastrnn's own files alone: save as .safetensors, or the "
            "layers without it"
        )
    chosen = module._chosen if isinstance(module, Recurrent) else {}
    for name, value in chosen.items():
        if name not in known and name not in IN_TRAINING:
            raise ValueError(
                f"this {module.kind} has {name}={value!r}, which is for fastrnn's own format: save "
                "it as .safetensors"
            )


#: A weight that torch's parametrizations keep in parts: its module's path, its name, the part.
_PARAMETRIZED = re.compile(r"(?:(.*)\.)?(parametrizations\.(\w+)\..*)")


def _split(name: str) -> tuple[str, str]:
    """The path of a name's module, and what it is called there."""
    match = _PARAMETRIZED.fullmatch(name)
    if match:
        return match[1] or "", match[2]
    prefix, _, rest = name.rpartition(".")
    return prefix, rest


def grouped(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values by the paths of their modules."""
    modules: dict[str, dict[str, Any]] = {}
    for name, value in found.items():
        prefix, rest = _split(name)
        modules.setdefault(prefix, {})[rest] = value
    return modules


def is_one(names: Any) -> bool:
    """Whether some of the names are those of a recurrent layer or cell of torch's."""
    plain = ("weight_ih_l0", "weight_ih")
    known = {name + part for name in plain for part in ("", "_g", "_orig")}
    known |= {f"parametrizations.{name}.original0" for name in plain}
    return any(_split(name)[1] in known for name in names)


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
    modules = grouped(found)
    made = [module_of(prefix, values, device, arrays) for prefix, values in modules.items()]
    if not made:
        raise MisfitError("it holds neither layers nor a state dict")
    if len(made) == 1 and isinstance(made[0], RecurrentCell):
        return made[0]
    try:
        return Sequential(*made)
    except (TypeError, ValueError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"its modules {', '.join(modules)} do not fit: {error}") from None


def module_of(
    prefix: str, values: Mapping[str, Any], device: str, arrays: Callable[[str, Any], Array]
) -> Any:
    """The layer, cell or linear layer of the values of one module.

    Raises MisfitError for what is none.
    """
    where = prefix or "the module"
    own = {name: arrays(f"{where}.{name}", value) for name, value in values.items()}
    own = _whole(where, own)
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
        if "initial_h_l0" in own:  # of fastrnn.torch's modules
            config["initial_state"] = "learned"
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


def _whole(where: str, values: dict[str, Array]) -> dict[str, Array]:
    """Weights put together that torch keeps in parts: by weight_norm, or pruned."""
    found: dict[str, Array] = {}
    for name, value in values.items():
        match = _PARAMETRIZED.fullmatch(name)
        base, _, part = name.rpartition("_")
        if match:
            parts = f"parametrizations.{match[3]}.original"
            if {key for key in values if key.startswith(f"parametrizations.{match[3]}.")} != {
                f"{parts}{k}" for k in (0, 1)
            }:
                raise MisfitError(
                    f"{where}.{match[3]} is parametrized, by what the file does not say: take it "
                    "out by torch.nn.utils.parametrize.remove_parametrizations and save it anew"
                )
            found[match[3]] = _normed(where, match[3], values[f"{parts}0"], values[f"{parts}1"])
        elif part in ("g", "v") and {f"{base}_g", f"{base}_v"} <= values.keys():
            found[base] = _normed(where, base, values[f"{base}_g"], values[f"{base}_v"])
        elif part in ("orig", "mask") and {f"{base}_orig", f"{base}_mask"} <= values.keys():
            weight, mask = values[f"{base}_orig"], values[f"{base}_mask"]
            if weight.shape != mask.shape:
                raise MisfitError(
                    f"{where}.{base}_mask has shape {mask.shape}, wanted {weight.shape}"
                )
            found[base] = weight * mask
        else:
            found[name] = value
    return found


def _normed(where: str, name: str, g: Array, v: Array) -> Array:
    """g v / |v| of weight_norm; the norm over the axes of which g has no more than one value."""
    wide = v.astype(np.float64)
    axes = tuple(range(v.ndim))
    if g.size != 1:
        fits = g.ndim == v.ndim and all(n in (1, m) for n, m in zip(g.shape, v.shape, strict=True))
        if not fits:
            raise MisfitError(f"{where}.{name} has a norm of shape {g.shape} and is {v.shape}")
        axes = tuple(axis for axis in axes if g.shape[axis] == 1)
    norm = np.sqrt((wide * wide).sum(axes, keepdims=True))
    with np.errstate(all="ignore"):  # a row of zeros has no direction, as in torch
        return np.asarray(g * wide / norm, v.dtype)


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
