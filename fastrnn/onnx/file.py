"""An ONNX file: its nodes and its constants."""

import math
import os
from collections.abc import Collection
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, external_data_helper, numpy_helper

from fastrnn.arrays import Array
from fastrnn.onnx.attributes import OPERATORS, place

_DTYPES = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float32",
    TensorProto.BFLOAT16: "float32",
}  # fmt: skip


def is_one_of(node: Any, kinds: Collection[str]) -> bool:
    """Whether a node is one of these operators of ONNX's own."""
    return node.op_type in kinds and node.domain in ("", "ai.onnx")


def where_of(node: Any) -> str:
    """How errors call a node of a file."""
    return place(node.op_type, node.name or next(iter(node.output), ""))


class File:
    """A parsed model: its nodes and constants.

    nodes, recurrent: all nodes, and those that are RNN, LSTM or GRU, in the file's order.
    producers: by name of a value, the node that gives it.
    inputs: names of what a caller gives.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self._size = path, len(data)
        try:
            model = ModelProto.FromString(data)
            self.nodes = list(model.graph.node)
            self.metadata = {entry.key: entry.value for entry in model.metadata_props}
            self.inputs = {value.name for value in model.graph.input}
            self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
            for node in self.nodes:
                if node.op_type == "Constant" and node.output and node.attribute:
                    self.constants.setdefault(node.output[0], node.attribute[0].t)
        except Exception as error:  # protobuf's own
            raise ValueError(f"file {path!r} is no ONNX model: {error}") from None
        if not self.nodes:
            raise ValueError(f"file {path!r} is no ONNX model, or has no nodes")
        self.recurrent = [node for node in self.nodes if is_one_of(node, OPERATORS)]
        self.producers = {name: node for node in self.nodes for name in node.output if name}

    def array(self, where: str, name: str) -> Array:
        """A constant's values in a float type of NumPy's."""
        tensor = self.constants.get(name)
        if tensor is None:
            raise ValueError(f"file {self.path!r}: {where}: {name!r} is no constant of the model")
        return self.values(where, name, tensor)

    def values(self, where: str, name: str, tensor: Any) -> Array:
        """The same of a tensor that stands anywhere in the model."""
        dtype = _DTYPES.get(tensor.data_type)
        if dtype is None:
            raise ValueError(f"file {self.path!r}: {where}: {name!r} is no array of floats")
        outside = tensor.data_location == TensorProto.EXTERNAL
        # Every value takes at least a byte of the file; dimensions alone must not ask for memory.
        size = math.prod(tensor.dims)
        if any(dim < 0 for dim in tensor.dims) or (size > self._size and not outside):
            raise ValueError(
                f"file {self.path!r}: {where}: {name!r} has dimensions {list(tensor.dims)}, more "
                "than its values"
            )
        try:
            if outside:
                folder = os.path.dirname(os.path.abspath(self.path))
                external_data_helper.load_external_data_for_tensor(tensor, folder)
                tensor.data_location = TensorProto.DEFAULT
            return np.asarray(numpy_helper.to_array(tensor)).astype(dtype)
        except OSError:
            raise
        except Exception as error:  # onnx raises its checker's, NumPy's and protobuf's
            raise ValueError(f"file {self.path!r}: {where}: {name!r}: {error}") from None

    def integers(self, name: str) -> list[int] | None:
        """A constant of integers in one row, as shapes and axes are; None of another kind."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.INT64 or len(tensor.dims) != 1:
            return None
        if tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return [int(value) for value in numpy_helper.to_array(tensor)]
        except Exception:  # NumPy's and protobuf's, of values that do not fit the dimensions
            return None
