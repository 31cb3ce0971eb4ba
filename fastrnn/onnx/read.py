"""The recurrent layers of an ONNX model."""

import itertools
import os
import re
from typing import Any

import numpy as np
from onnx import helper

from fastrnn.arrays import Array
from fastrnn.device import kernels_for
from fastrnn.files.description import KEY
from fastrnn.files.gates import from_format
from fastrnn.files.paths import path_of
from fastrnn.models.classes import class_of
from fastrnn.models.layer import Layer
from fastrnn.onnx.attributes import OPERATORS, Node, parse
from fastrnn.onnx.chain import check_states, is_chain
from fastrnn.onnx.file import File, where_of
from fastrnn.onnx.weights import check_weights, in_torch_order
from fastrnn.weights import own
from fastrnn_kernels import handlers
from fastrnn_kernels.cells.activations import RELU, TANH

#: The constants of a file that `save` wrote: of a module, and there of a layer or a linear module.
_OWN = re.compile(r"((?:\d+\.)?)(?:l(\d+)\.([WRB])|(weight|bias))")


def load(file: str | os.PathLike[str], *, device: str = "auto") -> dict[str, Any]:
    """The RNN, LSTM and GRU nodes of a model as layers of one level, by the node's name.

    A node without a name, or with that of another, goes by its first output, with a number
    behind it where another node has that name. Weights have to be constants of the model; half
    precision becomes float32. A layer's y is (T, B, D * H), where a node's Y has the directions
    on an axis of their own.

    Raises OSError if the file cannot be read, ValueError if it is no ONNX model, or if a node is
    not what a layer can be; the message names the node and the attribute.
    """
    kernels_for(device)
    path = str(path_of(file))
    return _layers(File(path), device)


def load_model(path: str, device: str = "auto") -> Any:
    """The model that `save` wrote, or the layer that a file's recurrent nodes are.

    Several nodes are a layer's levels where each reads what the one before has given, its
    directions side by side, as PyTorch exports them; their states have to be zero or the
    caller's. What else the file computes is left out, unless it has weights, which are named.
    """
    file = File(path)
    text = file.metadata.get(KEY)
    if text is not None:
        whole = own.restored(path, text, device, _own_values(file))
        check_all_read(file)
        return whole
    layers = _layers(file, device)
    levels = list(layers.values())
    if levels and is_chain(file, levels):
        configs = [{**layer.config(), "input_size": 0} for layer in levels]
        same = all(type(layer) is type(levels[0]) for layer in levels)
        if same and all(config == configs[0] for config in configs):
            check_states(file)
            check_all_read(file)
            return _stacked(path, levels)
    raise ValueError(
        f"file {path!r} has {len(layers)} recurrent nodes, wanted one, or the levels of one layer; "
        "fastrnn.onnx.load gives them by name"
    )


def check_all_read(file: File) -> None:
    """Raise ValueError that names the weights of a file that no layer has taken."""
    left = [f"{name} {shape}" for name, shape in file.unread().items()]
    if left:
        raise ValueError(
            f"file {file.path!r} has weights that no layer here takes: "
            f"{', '.join(left[:20])}{', ...' * (len(left) > 20)}; fastrnn.onnx.load gives the "
            "recurrent layers alone"
        )


def _stacked(path: str, levels: list[Any]) -> Any:
    """Layers of one level as one of several."""
    values = {
        name.replace("_l0", f"_l{k}"): value
        for k, layer in enumerate(levels)
        for name, value in layer.parameters.items()
    }
    try:
        return type(levels[0])._restored({**levels[0].config(), "num_layers": len(levels)}, values)
    except ValueError as error:
        raise ValueError(f"file {path!r}: its levels do not fit: {error}") from None


def _layers(file: File, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    taken = {proto.name for proto in file.recurrent}
    for proto in file.recurrent:
        name = proto.name
        if not name or name in found:
            first = next((output for output in proto.output if output), "node")
            numbered = (f"{first}_{number}" for number in itertools.count(1))
            name = next(free for free in itertools.chain((first,), numbered) if free not in taken)
            taken.add(name)
        found[name] = _layer(file, proto, device)
    return found


def _layer(file: File, proto: Any, device: str) -> Layer[Any]:
    kind = proto.op_type
    where = where_of(proto)
    try:
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    except (ValueError, TypeError, AttributeError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {file.path!r}: {where}: its attributes: {error}") from error
    try:
        node = parse(kind, where, attributes)
        inputs = [*proto.input, *[""] * 8][:8]
        w, r, b = (file.array(where, name) if name else None for name in inputs[1:4])
        if w is None or r is None:
            raise ValueError(f"{where}: input {'R' if w is not None else 'W'!r} is missing")
        config = _config(node, *check_weights(node, w, r, b))
        for position in (5, 6, 7):
            _check_left_out(file, where, position, inputs[position])
        dtype = np.result_type(w, r)
        values = {}
        for d, suffix in enumerate(("_l0", "_l0_reverse")[: len(node.reverse)]):
            values[f"weight_ih{suffix}"] = in_torch_order(node, w[d], dtype)
            values[f"weight_hh{suffix}"] = in_torch_order(node, r[d], dtype)
            if b is not None:
                for part, rows in zip(("ih", "hh"), np.split(b[d], 2), strict=True):
                    values[f"bias_{part}{suffix}"] = in_torch_order(node, rows, dtype)
        config |= {"bias": b is not None, "device": device, "dtype": str(dtype)}
        make: Any = class_of(kind)
        layer: Layer[Any] = make._restored(config, values)
        return layer
    except (TypeError, ValueError) as error:
        handlers.pass_on(error)
        text = str(error)
        named = text if text.startswith("file ") else f"file {file.path!r}: {text}"
        raise ValueError(named) from None


def _check_left_out(file: File, where: str, position: int, name: str) -> None:
    """Raise for what a layer has no place for: peepholes, and states that are not zero."""
    what = {5: "initial_h", 6: "initial_c", 7: "P"}[position]
    if not name:
        return
    if name in file.constants:
        if file.array(where, name).any():
            raise ValueError(
                f"{where}: input {what!r} is a constant, which a layer has no place for"
            )
    elif what == "P":
        raise ValueError(f"{where}: input 'P', peepholes, is nothing that a layer has")


def _config(node: Node, I: int, H: int) -> dict[str, Any]:
    """The layer's configuration; raises ValueError for what none can be."""

    def refuse(attribute: str, came: object) -> ValueError:
        return ValueError(f"{node.where}: attribute {attribute!r} is {came}, which no layer has")

    usual = OPERATORS[node.kind][1]
    own: dict[str, Any] = {}
    if node.kind == "RNN" and node.activations[0] in ((TANH,), (RELU,)):
        usual = node.activations[0]
        own["nonlinearity"] = usual[0].name
    if any(chosen != usual for chosen in node.activations):
        names = [str(one) for chosen in node.activations for one in chosen]
        raise refuse("activations", names)
    if node.clip is not None:
        raise refuse("clip", node.clip)
    if node.reverse == (True,):
        raise refuse("direction", "'reverse'")
    if node.kind == "LSTM":
        if node.option:
            raise refuse("input_forget", 1)
        own["proj_size"] = 0
    if node.kind == "GRU":
        own["reset_after"] = node.option
    return {
        "input_size": I, "hidden_size": H, "num_layers": 1, "batch_first": node.batch_first,
        "dropout": 0.0, "bidirectional": len(node.reverse) == 2, **own,
    }  # fmt: skip


def _own_values(file: File) -> dict[str, Array]:
    """The parameters in a file that `save` wrote, by name."""
    values: dict[str, Array] = {}
    for name in file.constants:
        match = _OWN.fullmatch(name)
        if match is None:
            continue
        prefix, layer, part, linear = match.groups()
        array = file.array("the model", name)
        if linear:
            values[prefix + linear] = array.T
            continue
        H = file.array("the model", f"{prefix}l{layer}.R").shape[-1]
        gates = array.shape[1] // H // (2 if part == "B" else 1) if array.ndim > 1 and H else 0
        if gates not in (1, 3, 4):
            raise ValueError(f"file {file.path!r}: {name!r} has shape {array.shape}")
        for rows, suffix in zip(array, ("", "_reverse"), strict=False):
            own = {"W": ("weight_ih",), "R": ("weight_hh",), "B": ("bias_ih", "bias_hh")}[part]
            for parameter, half in zip(own, np.split(rows, len(own)), strict=True):
                value = from_format("onnx", half, gates)
                values[f"{prefix}{parameter}_l{layer}{suffix}"] = value
    return values
