"""The recurrent layers of an ONNX model."""

import os
import re
from collections.abc import Sequence
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
from fastrnn.models.variants import kept
from fastrnn.onnx.attributes import Node, parse
from fastrnn.onnx.chain import check_states, is_chain, is_learned
from fastrnn.onnx.file import File, Recurrent, is_quantized
from fastrnn.onnx.fold import array, numbers
from fastrnn.onnx.weights import (
    check_weights,
    dequantized,
    in_torch_order,
    peepholes,
    shaped,
)
from fastrnn.weights import own
from fastrnn.weights.contents import Part, shapes_of, with_listing
from fastrnn_kernels import handlers

#: Recurrent nodes that an error looks at.
_LOOKED_AT = 200
#: The constants of a file that `save` wrote: of a module, and there of a layer or a linear module.
_OWN = re.compile(r"((?:\d+\.)?)(?:l(\d+)\.([WRB])|(weight|bias))")


def load(file: str | os.PathLike[str], *, device: str = "auto") -> dict[str, Any]:
    """The RNN, LSTM and GRU nodes of a model as layers of one level, by the node's name.

    A node inside of an If, a Loop or a Scan has the path to it before its name,
    "If_0/then_branch/LSTM_3". A node without a name, or with that of another, goes by its first
    output, with a number behind it where another node has that name. Weights have to be constants
    of the model, or computed of some by what moves values or changes their type; half precision
    becomes float32, and so do the integers of onnxruntime's DynamicQuantizeLSTM. A layer's y is
    (T, B, D * H), where a node's Y has the directions on an axis of their own.

    Raises OSError if the file cannot be read, ValueError if it is no ONNX model, has no such node,
    or if a node is not what a layer can be; the message names the node and the attribute.
    """
    kernels_for(device)
    path = str(path_of(file))
    found = _opened(path)
    return {node.name: _layer(found, node, device) for node in found.recurrent}


def load_model(path: str, device: str = "auto", prefix: str = "") -> Any:
    """The model that `save` wrote, or the layer that a file's recurrent nodes are.

    Several nodes are a layer's levels where each reads what the one before has given, its
    directions side by side, as PyTorch exports them; their states have to be zero or the
    caller's. What else the file computes is left out, unless it has weights, which are named.

    prefix: the name of one node, or the path to some.
    """
    file = _opened(path, described=True)
    text = file.metadata.get(KEY)
    if text is not None:
        whole = own.restored(path, text, device, _own_values(file))
        if not prefix:
            check_all_read(file, [])
            return whole
        module = own.module_of(whole, prefix)
        if module is not None:
            return module
    nodes = [node for node in file.recurrent if _is_under(node.name, prefix)]
    if not nodes:
        parts = _parts(file, device, _LOOKED_AT) if text is None else own.parts_of(whole)
        raise ValueError(with_listing(f"file {path!r} has no recurrent node {prefix!r}", parts))
    try:
        levels = [_layer(file, node, device) for node in nodes]
    except ValueError as error:
        handlers.pass_on(error)
        parts = _parts(file, device, _LOOKED_AT) if len(file.recurrent) > 1 else []
        raise ValueError(with_listing(str(error), parts)) from None
    if is_chain(file, nodes, levels):
        configs = [{**layer.config(), "input_size": 0} for layer in levels]
        same = all(type(layer) is type(levels[0]) for layer in levels)
        if same and all(config == configs[0] for config in configs):
            check_states(file, nodes)
            if not prefix:
                check_all_read(file, nodes)
            return _stacked(path, levels)
    message = (
        f"file {path!r} has {len(levels)} recurrent nodes{f' under {prefix!r}' if prefix else ''}, "
        "wanted one, or the levels of one layer; fastrnn.onnx.load gives them by name"
    )
    raise ValueError(with_listing(message, _parts(file, device, _LOOKED_AT)))


def contents(path: str, device: str = "auto") -> list[Part]:
    """What a file holds: each recurrent node, and the constants that none of them reads."""
    file = _opened(path, described=True)
    text = file.metadata.get(KEY)
    if text is not None:
        return own.parts_of(own.restored(path, text, device, _own_values(file)))
    return _parts(file, device, len(file.recurrent))


def _opened(path: str, described: bool = False) -> File:
    """A file that has recurrent nodes, or the description of a model of fastrnn's."""
    file = File(path)
    file.check_functions()
    if not file.recurrent and not (described and KEY in file.metadata):
        kinds = sorted({node.op_type for graph in file.graphs for node in graph.nodes})
        more = f" and {len(kinds) - 12} kinds more" if len(kinds) > 12 else ""
        raise ValueError(
            f"file {path!r} has no RNN, LSTM or GRU node, but {', '.join(kinds[:12])}{more}"
        )
    return file


def _parts(file: File, device: str, most: int) -> list[Part]:
    """The first recurrent nodes of a file, and the constants that none of them reads."""
    found = []
    for node in file.recurrent[:most]:
        try:
            layer = _layer(file, node, device)
        except ValueError as error:
            handlers.pass_on(error)
            reason = str(error).removeprefix(f"file {file.path!r}: ")
            found.append(Part(node.name, reason=reason))
        else:
            found.append(Part(node.name, shapes_of(layer.parameters), layer))
    return found + [Part(name, {"": shape}) for name, shape in file.unread().items()]


def _is_under(name: str, prefix: str) -> bool:
    """Whether a node goes by a prefix: its name, or the path to it."""
    return not prefix or name == prefix or name.startswith((f"{prefix}/", f"{prefix}."))


def check_all_read(file: File, nodes: Sequence[Recurrent]) -> None:
    """Raise ValueError that names the weights of a file that no layer has taken.

    nodes: the names of those by which the rest is loaded alone.
    """
    left = [f"{name} {shape}" for name, shape in file.unread().items()]
    if left:
        told = ", ".join(repr(node.name) for node in nodes[:8])
        raise ValueError(
            f"file {file.path!r} has weights that no layer here takes: "
            f"{', '.join(left[:20])}{', ...' * (len(left) > 20)}; the recurrent layers alone are "
            f"given by fastrnn.onnx.load{f', or by prefix, one of {told}' if told else ''}"
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


def _layer(file: File, recurrent: Recurrent, device: str) -> Layer[Any]:
    graph, proto, where = recurrent.graph, recurrent.proto, recurrent.where
    kind = "LSTM" if is_quantized(proto) else proto.op_type
    try:
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    except (ValueError, TypeError, AttributeError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {file.path!r}: {where}: its attributes: {error}") from error
    try:
        node = parse(kind, where, attributes)
        inputs = [*proto.input, *[""] * 12][:12]
        if is_quantized(proto):
            w, r = (_dequantized(file, recurrent, inputs, word) for word in "WR")
        else:
            w, r = (array(file, graph, where, name) if name else None for name in inputs[1:3])
        b = array(file, graph, where, inputs[3]) if inputs[3] else None
        if w is None or r is None:
            raise ValueError(f"{where}: input {'R' if w is not None else 'W'!r} is missing")
        I, H = check_weights(node, w, r, b)
        config = _config(node, I, H)
        for position, name in ((5, "initial_h"), (6, "initial_c")):
            if inputs[position] and is_learned(file, recurrent, inputs[position]):
                raise ValueError(
                    f"{where}: input {name!r} is a constant, which is nothing that is read here"
                )
        p = array(file, graph, where, inputs[7]) if inputs[7] else None
        if p is not None:
            shaped(where, "P", p, (len(node.reverse), 3 * H))
            config["peepholes"] = bool(p.any())
        dtype = np.result_type(w, r)
        values = {}
        for d, suffix in enumerate(("_l0", "_l0_reverse")[: len(node.reverse)]):
            values[f"weight_ih{suffix}"] = in_torch_order(node, w[d], dtype)
            values[f"weight_hh{suffix}"] = in_torch_order(node, r[d], dtype)
            if p is not None and config["peepholes"]:
                values |= {f"{name}{suffix}": rows for name, rows in peepholes(p[d]).items()}
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


def _dequantized(file: File, recurrent: Recurrent, inputs: list[str], word: str) -> Array | None:
    """W or R of an LSTM of integer weights; None if it is missing."""
    at = {"W": (1, 8, 9), "R": (2, 10, 11)}[word]
    q, scale, zero = (
        numbers(file, recurrent.graph, recurrent.where, inputs[k]) if inputs[k] else None
        for k in at
    )
    if q is None:
        return None
    if scale is None:
        raise ValueError(f"{recurrent.where}: input '{word}_scale' is missing")
    return dequantized(recurrent.where, word, q, scale, zero)


def _config(node: Node, I: int, H: int) -> dict[str, Any]:
    """The layer's configuration; raises ValueError for what none can be."""

    def refuse(attribute: str, came: object) -> ValueError:
        return ValueError(f"{node.where}: attribute {attribute!r} is {came}, which no layer has")

    own: dict[str, Any] = {}
    chosen = node.activations[0]
    if any(other != chosen for other in node.activations) or len(set(chosen[1:])) > 1:
        raise refuse("activations", [str(one) for part in node.activations for one in part])
    # Of an RNN its function, else that of gates, and that of all the rest.
    names = ("activation",) if node.kind == "RNN" else ("recurrent_activation", "activation")
    own |= {name: kept(one) for name, one in zip(names, chosen, strict=False)}
    if node.kind == "RNN":
        own["nonlinearity"] = "tanh"
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
    for name in file.graph.constants:
        match = _OWN.fullmatch(name)
        if match is None:
            continue
        prefix, layer, part, linear = match.groups()
        values_of = array(file, file.graph, "the model", name)
        if linear:
            values[prefix + linear] = values_of.T
            continue
        H = array(file, file.graph, "the model", f"{prefix}l{layer}.R").shape[-1]
        rows = values_of.shape[1] if values_of.ndim > 1 else 0
        gates = rows // H // (2 if part == "B" else 1) if H else 0
        if gates not in (1, 3, 4):
            raise ValueError(f"file {file.path!r}: {name!r} has shape {values_of.shape}")
        for half, suffix in zip(values_of, ("", "_reverse"), strict=False):
            own = {"W": ("weight_ih",), "R": ("weight_hh",), "B": ("bias_ih", "bias_hh")}[part]
            for parameter, one in zip(own, np.split(half, len(own)), strict=True):
                value = from_format("onnx", one, gates)
                values[f"{prefix}{parameter}_l{layer}{suffix}"] = value
    return values
