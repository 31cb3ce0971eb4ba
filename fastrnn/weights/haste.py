"""Haste's layout: kernel, recurrent_kernel, bias and, of a GRU, recurrent_bias, by these names.

kernel (I, G * H) and recurrent_kernel (H, G * H) with gates i, g, f, o, or z, r, h; the GRU's
reset gate acts after the product. In an .npz or a .safetensors file; one level, one direction.
"""

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import safetensors
from fastrnn.files import zip as archive
from fastrnn.files.errors import MisfitError
from fastrnn.files.gates import from_format, to_format
from fastrnn.files.paths import path_of
from fastrnn.models.layer import Layer
from fastrnn.models.layers import GRU, LSTM
from fastrnn.weights import modules
from fastrnn.weights.contents import Part, shapes_of
from fastrnn.weights.state_dict import config_of, float_array, modules_of
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.files import write_whole

#: Names of arrays that are torch's, or near: a path, and what they are there.
_NAME = re.compile(r"(?:(.+?)[._/])?(weight|bias|w|b)((?:_(?:ih|hh|hr)(?:_l\d+)?(?:_reverse)?)?)")
_NAMES = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")


def is_one(names: Collection[str]) -> bool:
    """Whether these are the names of the layout."""
    return {"kernel", "recurrent_kernel", "bias"} <= set(names)


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """The layer of an .npz file: Haste's, or modules under torch's names, also w_ih and b_hh.

    prefix: the path of the names to take, which "_", "/" and "." may join; all if empty.

    Raises OSError if it cannot be read, ValueError if it is no such file or its shapes do not
    fit.
    """
    found = archive.arrays(path)
    rest = {
        name[len(prefix) + 1 :]: value
        for name, value in found.items()
        if name.startswith(tuple(f"{prefix}{sign}" for sign in "._/"))
    }
    own = rest if prefix else found
    if is_one(own):
        return from_arrays(path, own, device)
    named = _in_torchs_names(found)
    if not any("weight" in name for name in named):
        raise ValueError(
            f"file {path!r} holds {', '.join(map(_told, found.items())) or 'nothing'}, wanted "
            "Haste's"
        )
    try:
        return modules.load(path, named, device, prefix, float_array)
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from None


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds, by the prefixes that `load` takes."""
    found = archive.arrays(path)
    if is_one(found):
        layer = from_arrays(path, found, device)
        return [Part("", shapes_of(found), layer)]
    parts = []
    rest = dict(found)
    for name in found:
        if name.endswith("recurrent_kernel") and name != "recurrent_kernel":
            begin = name.removesuffix("recurrent_kernel")
            own = {n.removeprefix(begin): rest.pop(n) for n in found if n.startswith(begin)}
            try:
                parts.append(Part(begin[:-1], shapes_of(own), from_arrays(path, own, device)))
            except ValueError as error:
                handlers.pass_on(error)
                parts.append(Part(begin[:-1], shapes_of(own), reason=str(error)))
    return parts + modules.contents(_in_torchs_names(rest), device, float_array)


def _told(entry: tuple[str, Array]) -> str:
    return f"{entry[0]} {entry[1].shape}"


def _in_torchs_names(found: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays by torch's names: of enc_w_ih, enc.weight_ih; of fc/b, fc.bias."""
    named = {}
    for name, value in found.items():
        match = _NAME.fullmatch(name)
        if match:
            word = {"w": "weight", "b": "bias"}.get(match[2], match[2])
            name = ".".join(filter(None, ((match[1] or "").replace("/", "."), word + match[3])))
        named[name] = value
    return named


def from_arrays(path: str, found: Mapping[str, Any], device: str) -> Any:
    """The layer of arrays by their names."""
    try:
        unknown = [name for name in found if name not in _NAMES]
        if unknown:
            raise MisfitError(f"it holds the unknown {', '.join(unknown)}")
        arrays = {name: float_array(name, value) for name, value in found.items()}
        kind: Any = GRU if "recurrent_bias" in arrays else LSTM
        G = 3 if kind is GRU else 4
        H = (*arrays["recurrent_kernel"].shape, 0)[0]
        width = (*arrays["kernel"].shape, 0)[0]
        wanted = dict(zip(_NAMES, [(width, G * H), (H, G * H), (G * H,), (G * H,)], strict=True))
        for name, array in arrays.items():
            if array.shape != wanted[name] or 0 in array.shape:
                raise MisfitError(f"{name} has shape {array.shape}, wanted {wanted[name]}")
        values = {
            "weight_ih_l0": arrays["kernel"].T,
            "weight_hh_l0": arrays["recurrent_kernel"].T,
            "bias_ih_l0": arrays["bias"],
            "bias_hh_l0": arrays.get("recurrent_bias", np.zeros_like(arrays["bias"])),
        }
        config = config_of(kind, width, H, 1, True, device)
        config["dtype"] = str(np.result_type(*arrays.values()))
        ordered = {name: from_format("haste", value, G) for name, value in values.items()}
        return kind._restored(config, ordered)
    except (TypeError, ValueError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r}: {error}") from None


def arrays_of(model: Layer[Any]) -> dict[str, Array]:
    """A layer's arrays in the layout.

    Raises ValueError for what it has no place for, TypeError for what is no model.
    """
    modules_of(model)
    if not isinstance(model, LSTM | GRU):
        raise ValueError(f"Haste's layout has no {type(model).__name__}, wanted an LSTM or a GRU")
    if model.num_layers > 1 or model.bidirectional or model.proj_size:
        raise ValueError(f"Haste's layout is for one level in one direction, not for {model!r}")
    if isinstance(model, GRU) and not model.reset_after:
        raise ValueError("Haste has no GRU that resets before the product")
    gates = len(model._cell.gates)
    values = {n: to_format("haste", v, gates) for n, v in model.parameters.items()}
    none = np.zeros(gates * model.hidden_size, model.dtype)
    b_ih, b_hh = values.get("bias_ih_l0", none), values.get("bias_hh_l0", none)
    found = {
        "kernel": np.ascontiguousarray(values["weight_ih_l0"].T),
        "recurrent_kernel": np.ascontiguousarray(values["weight_hh_l0"].T),
    }
    if isinstance(model, GRU):
        return found | {"bias": b_ih, "recurrent_bias": b_hh}
    return found | {"bias": b_ih + b_hh}


def save(model: Layer[Any], path: str | os.PathLike[str]) -> None:
    """Write a layer as .npz, or as .safetensors where the file is named so."""
    target, arrays = path_of(path), arrays_of(model)
    if target.suffix.lower() == ".safetensors":
        safetensors.write(arrays, target)
    else:
        write_whole(target, archive.npz(arrays))
