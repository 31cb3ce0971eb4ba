"""NeuralAmpModeler's `.nam` files: its LSTM, whose states begin from what it has learned.

A file is an object of JSON: the architecture, its sizes, and all weights as one flat list. Of each
level these are W (4 H, I + H), whose columns multiply x, then h, rows in the order i, f, g, o; b
(4 H,); the h and the c (H,) that it begins from. At the end are the output layer's weight (H,) and
its bias.
"""

import json
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import budget
from fastrnn.files.errors import MisfitError
from fastrnn.files.json import parse
from fastrnn.files.paths import path_of
from fastrnn.models.layers import LSTM
from fastrnn.models.linear import Linear
from fastrnn.models.sequential import Sequential
from fastrnn.weights.contents import Part, with_listing
from fastrnn.weights.own import module_of, parts_of
from fastrnn.weights.state_dict import config_of, float_array, linear_config, modules_of
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.files import write_whole

#: What a configuration has, and the most that it may be.
_SIZES = {"input_size": 2**16, "hidden_size": 2**16, "num_layers": 10_000}
#: What is written: the oldest version that has this layout, and the rate that is taken for none.
_VERSION, _RATE = "0.5.0", 48_000


def load(path: str, device: str = "auto", prefix: str = "") -> Any:
    """The model of a file, float32: a Sequential of an LSTM and its output layer.

    prefix: "0" for the LSTM, "1" for the output layer.

    Raises OSError if it cannot be read, ValueError if it holds no LSTM of NeuralAmpModeler's.
    """
    model = _read(path, device)
    if not prefix:
        return model
    module = module_of(model, prefix)
    if module is None:
        raise ValueError(with_listing(f"file {path!r} has no part {prefix!r}", parts_of(model)))
    return module


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds, by the prefixes that `load` takes."""
    return parts_of(_read(path, device))


def _read(path: str, device: str) -> Sequential:
    data, room = budget.read(path)
    try:
        return _model(parse(data, room, "it"), device)
    except MisfitError as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r}: {error}") from None


def _model(found: Any, device: str) -> Sequential:
    if not isinstance(found, dict) or not {"architecture", "config", "weights"} <= found.keys():
        raise MisfitError("it is no model of NeuralAmpModeler's, which has an architecture")
    if found["architecture"] != "LSTM":
        raise MisfitError(f"it holds a {found['architecture']}, wanted an LSTM")
    I, H, L = (_size(found["config"], *one) for one in _SIZES.items())
    weights = float_array("weights", found["weights"]).astype(np.float32, copy=False)
    many = sum(4 * H * (width + H + 1) + 2 * H for width in (I, *[H] * (L - 1))) + H + 1
    if weights.shape != (many,):
        raise MisfitError(
            f"weights have shape {weights.shape}, wanted ({many},) for input_size={I}, "
            f"hidden_size={H}, num_layers={L}"
        )
    at = 0

    def taken(*shape: int) -> Array:
        nonlocal at
        first, at = at, at + int(np.prod(shape))
        return weights[first:at].reshape(shape)

    values: dict[str, Array] = {}
    for k in range(L):
        both = taken(4 * H, (H if k else I) + H)
        values[f"weight_ih_l{k}"], values[f"weight_hh_l{k}"] = both[:, :-H], both[:, -H:]
        values[f"bias_ih_l{k}"], values[f"bias_hh_l{k}"] = taken(4 * H), np.zeros(4 * H, np.float32)
        values[f"initial_h_l{k}"], values[f"initial_c_l{k}"] = taken(H), taken(H)
    config = {**config_of(LSTM, I, H, L, True, device), "initial_state": "learned"}
    head = {"weight": taken(1, H), "bias": taken(1)}
    linear = Linear._restored(linear_config(H, 1, True, None, device, "float32"), head)
    return Sequential(LSTM._restored(config, values), linear)


def _size(config: Any, name: str, most: int) -> int:
    size = config.get(name) if isinstance(config, dict) else None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= most:
        raise MisfitError(f"{name} is {size!r}, wanted 1 to {most}")
    return size


def save(model: Any, path: Any) -> None:
    """Write an LSTM and the Linear of one output behind it, in float32.

    Raises ValueError for another model, which NeuralAmpModeler has not, TypeError for none.
    """
    modules = modules_of(model, {"initial_state"})
    lstm, head = modules if len(modules) == 2 else (None, None)
    if (
        not isinstance(lstm, LSTM) or not isinstance(head, Linear)
        or lstm.bidirectional or lstm.proj_size or head.out_features > 1 or head.activation
    ):  # fmt: skip
        raise ValueError(
            "NeuralAmpModeler's LSTM is one in one direction with a Linear of one output behind "
            f"it: nothing that is {model!r}"
        )
    H, own = lstm.hidden_size, lstm.parameters
    parts = []
    for k in range(lstm.num_layers):
        parts.append(np.concatenate([own[f"weight_ih_l{k}"], own[f"weight_hh_l{k}"]], axis=1))
        none = np.zeros(4 * H)
        parts.append(own.get(f"bias_ih_l{k}", none) + own.get(f"bias_hh_l{k}", none))
        parts += [own.get(f"initial_{state}_l{k}", np.zeros(H)) for state in "hc"]
    parts += [head.parameters["weight"], head.parameters.get("bias", np.zeros(1))]
    weights = np.concatenate([part.ravel() for part in parts]).astype(np.float32)
    sizes = {name: getattr(lstm, name) for name in _SIZES}
    found = {
        "version": _VERSION, "architecture": "LSTM", "config": sizes, "weights": weights.tolist(),
        "sample_rate": _RATE,
    }  # fmt: skip
    write_whole(path_of(path), json.dumps(found).encode())
