"""A layer, or several one after the other, as an ONNX model."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastrnn.arrays import Array
from fastrnn.files.description import KEY
from fastrnn.files.gates import to_format
from fastrnn.files.paths import path_of
from fastrnn.models.layer import Layer
from fastrnn.models.layers import GRU, RNN
from fastrnn.models.linear import Linear
from fastrnn.models.sequential import Sequential
from fastrnn.onnx.attributes import OPERATORS
from fastrnn.weights.state_dict import modules_of
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.files import write_whole

#: 2021's: every runtime since then reads it.
OPSET, IR_VERSION = 14, 7


def save(model: Layer[Any] | Linear | Sequential, file: str | os.PathLike[str]) -> None:
    """Write a layer, or a Sequential, as an ONNX model of the same inputs and outputs.

    Inputs: x (T, B, I), or (B, T, I) with batch_first, and the initial state, h_0 and of an
    LSTM c_0, (num_layers * D, B, H) each. Outputs: y, and the final state h_n, c_n. T and B are
    left open. The states of a Sequential have the number of their module before their name.

    Without dropout, in the model's float type (onnxruntime has these operators in float32).
    batch_first is met by transposes, as onnxruntime has no layout 1.

    Raises ValueError for a projection, which ONNX has not, TypeError for another kind of model,
    OSError where the file cannot be written.
    """
    path = path_of(file)
    write_whole(path, serialize(model))


def serialize(model: Layer[Any] | Linear | Sequential) -> bytes:
    """The bytes of `save`."""
    modules = modules_of(model)
    graph = _Graph(model)
    layers = [module for module in modules if isinstance(module, Layer)]
    batch_first = any(layer.batch_first for layer in layers)
    first, last = modules[0], modules[-1]
    axes = ["batch", "time"] if batch_first else ["time", "batch"]
    I = first.in_features if isinstance(first, Linear) else first.input_size
    O = last.out_features if isinstance(last, Linear) else last.output_size
    graph.inputs.append(graph.value("x", [*axes, I]))
    at = graph.node("Transpose", ["x"], perm=[1, 0, 2]) if batch_first else "x"
    for k, module in enumerate(modules):
        prefix = f"{k}." if isinstance(model, Sequential) else ""
        if isinstance(module, Linear):
            at = _linear(graph, module, prefix, at)
        else:
            at = _recurrent(graph, module, prefix, at)
    last_op: dict[str, Any] = {"perm": [1, 0, 2]} if batch_first else {}
    graph.node("Transpose" if batch_first else "Identity", [at], to="y", **last_op)
    graph.outputs.insert(0, graph.value("y", [*axes, O]))
    return graph.serialize(model.description())


class _Graph:
    """A graph that grows node by node."""

    def __init__(self, model: Any) -> None:
        double = model.dtype == np.float64
        self.type = TensorProto.DOUBLE if double else TensorProto.FLOAT
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def value(self, name: str, shape: Sequence[str | int]) -> Any:
        """An input or output of the model."""
        return helper.make_tensor_value_info(name, self.type, shape)

    def constant(self, name: str, array: Array) -> str:
        """A constant; its name."""
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], to: str = "", **attributes: Any) -> str:
        """A node of one output; the name of that."""
        to = to or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [to], name=f"node_{to}", **attributes))
        return to

    def add(self, node: Any) -> None:
        """A node made elsewhere."""
        self._nodes.append(node)

    def serialize(self, description: str) -> bytes:
        """The model's bytes."""
        graph = helper.make_graph(
            self._nodes, "fastrnn", self.inputs, self.outputs, self._constants
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fastrnn"
        )
        helper.set_model_props(model, {KEY: description})
        try:
            return bytes(model.SerializeToString())
        except Exception as error:  # protobuf's own, past 2 GiB
            handlers.pass_on(error)
            raise ValueError(f"the model cannot be written as ONNX: {error}") from None


def _linear(graph: _Graph, module: Linear, prefix: str, x: str) -> str:
    weight = graph.constant(f"{prefix}weight", module.parameters["weight"].T)
    at = graph.node("MatMul", [x, weight])
    if module.bias:
        at = graph.node("Add", [at, graph.constant(f"{prefix}bias", module.parameters["bias"])])
    if module.activation is not None:
        at = graph.node(module.activation.capitalize(), [at])
    return at


def _recurrent(graph: _Graph, layer: Layer[Any], prefix: str, x: str) -> str:
    if layer.proj_size:
        raise ValueError(f"this LSTM has proj_size={layer.proj_size}, and ONNX has no projection")
    D, H, L, letters = layer.directions, layer.hidden_size, layer.num_layers, layer._cell.states
    starts: list[list[str]] = []
    for letter in letters:
        name = f"{prefix}{letter}_0"
        graph.inputs.append(graph.value(name, [L * D, "batch", H]))
        graph.outputs.append(graph.value(f"{prefix}{letter}_n", [L * D, "batch", H]))
        if L == 1:
            starts.append([name])
            continue
        parts = [f"{name}_l{k}" for k in range(L)]
        sizes = graph.constant(f"{name}_sizes", np.full(L, D, np.int64))
        graph.add(helper.make_node("Split", [name, sizes], parts, name=f"split_{name}", axis=0))
        starts.append(parts)
    width = graph.constant(f"{prefix}width", np.array([0, 0, D * H], np.int64))
    ends: list[list[str]] = [[] for _ in letters]
    for k in range(L):
        names = {part: f"{prefix}l{k}.{part}" for part in ("W", "R", "B", "y")}
        for part, array in node_weights(layer, k).items():
            graph.constant(names[part], array)
        for letter, end in zip(letters, ends, strict=True):
            end.append(f"{prefix}{letter}_n" if L == 1 else f"{prefix}{letter}_n_l{k}")
        inputs = [x, names["W"], names["R"], names["B"] if layer.bias else "", ""]
        inputs += [start[k] for start in starts]
        outputs = [names["y"], *(end[k] for end in ends)]
        graph.add(
            helper.make_node(
                type_name(layer), inputs, outputs, name=f"{prefix}l{k}", **attributes_of(layer)
            )
        )
        whole = graph.node("Transpose", [names["y"]], perm=[0, 2, 1, 3])
        x = graph.node("Reshape", [whole, width])
    if L > 1:
        for letter, end in zip(letters, ends, strict=True):
            graph.node("Concat", end, to=f"{prefix}{letter}_n", axis=0)
    return x


def type_name(layer: Layer[Any]) -> str:
    """RNN, LSTM or GRU, also of a subclass; ValueError for what ONNX has no operator for."""
    if layer.kind not in OPERATORS:
        raise ValueError(f"ONNX has no {layer.kind}")
    return layer.kind


def attributes_of(layer: Layer[Any]) -> dict[str, Any]:
    """The attributes of a layer's nodes."""
    found: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if layer.bidirectional:
        found["direction"] = "bidirectional"
    if isinstance(layer, GRU):
        found["linear_before_reset"] = int(layer.reset_after)
    if isinstance(layer, RNN):
        found["activations"] = [layer.nonlinearity.capitalize()] * layer.directions
    return found


def node_weights(layer: Layer[Any], k: int) -> dict[str, Array]:
    """W, R and, with biases, B of layer k as its node has them."""
    gates = len(layer._cell.gates)

    def of(name: str) -> list[Array]:
        suffixes = layer._suffixes(k)
        return [to_format("onnx", layer.parameters[f"{name}{s}"], gates) for s in suffixes]

    found = {"W": np.stack(of("weight_ih")), "R": np.stack(of("weight_hh"))}
    if layer.bias:
        found["B"] = np.concatenate([np.stack(of("bias_ih")), np.stack(of("bias_hh"))], axis=1)
    return found
