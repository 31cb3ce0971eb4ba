"""An ONNX file: its nodes and its constants."""

import math
import os
from collections.abc import Collection
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, external_data_helper, numpy_helper

from fastrnn.arrays import Array
from fastrnn.files import budget as budgets
from fastrnn.files import protobuf
from fastrnn.files.errors import MisfitError
from fastrnn.onnx.attributes import OPERATORS, place
from fastrnn_kernels import handlers

_DTYPES = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float32",
    TensorProto.BFLOAT16: "float32",
}  # fmt: skip
#: Bytes of a value of each.
_SIZES = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2,
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

    def __init__(self, path: str) -> None:
        """Read a file.

        Raises OSError if it cannot be read, ValueError if it is no ONNX model, or would take more
        than any of its size.
        """
        data, self.budget = budgets.read(path)
        self.path, self._size = path, len(data)
        self._outside: set[str] = set()
        self._read: set[int] = set()
        try:
            protobuf.check(data, ModelProto.DESCRIPTOR, self.budget, "the model")
        except MisfitError as error:
            raise ValueError(f"file {path!r} is no ONNX model: {error}") from None
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
            handlers.pass_on(error)
            raise ValueError(f"file {path!r} is no ONNX model: {error}") from error
        if not self.nodes:
            raise ValueError(f"file {path!r} is no ONNX model, or has no nodes")
        self.recurrent = [node for node in self.nodes if is_one_of(node, OPERATORS)]
        self.producers = {name: node for node in self.nodes for name in node.output if name}

    def check_time(self) -> None:
        """Raise ValueError where reading has taken longer than it may."""
        try:
            self.budget.take(0, "how its nodes are joined")
        except MisfitError as error:
            raise ValueError(f"file {self.path!r}: {error}") from None

    def array(self, where: str, name: str) -> Array:
        """A constant's values in a float type of NumPy's."""
        tensor = self.constants.get(name)
        if tensor is None:
            raise ValueError(f"file {self.path!r}: {where}: {name!r} is no constant of the model")
        return self.values(where, name, tensor)

    def values(self, where: str, name: str, tensor: Any) -> Array:
        """The same of a tensor that stands anywhere in the model."""
        self._read.add(id(tensor))
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
                self._load(tensor, size)
            self.budget.take(8 * size, f"{where}: {name!r}")
            return np.asarray(numpy_helper.to_array(tensor)).astype(dtype)
        except OSError:
            raise
        except MisfitError as error:
            raise ValueError(f"file {self.path!r}: {error}") from None
        except Exception as error:  # onnx raises its checker's, NumPy's and protobuf's
            handlers.pass_on(error)
            raise ValueError(f"file {self.path!r}: {where}: {name!r}: {error}") from error

    def _load(self, tensor: Any, size: int) -> None:
        """Take in values that lie in a file of their own, as many bytes as they are."""
        folder = os.path.dirname(os.path.abspath(self.path))
        told = {entry.key: entry.value for entry in tensor.external_data}
        path = os.path.join(folder, told.get("location", ""))
        budgets.checked(path)
        length = size * _SIZES[tensor.data_type]
        if told.get("length", str(length)) != str(length) or length > os.stat(path).st_size:
            raise MisfitError(
                f"{tensor.name!r} has dimensions {list(tensor.dims)}, but not so "
                f"many values in {told.get('location')!r}"
            )
        if "length" not in told:  # else all the rest would be read
            tensor.external_data.add(key="length", value=str(length))
        if path not in self._outside:
            self._outside.add(path)
            self.budget.more(os.stat(path).st_size)
        external_data_helper.load_external_data_for_tensor(tensor, folder)
        tensor.data_location = TensorProto.DEFAULT

    def unread(self) -> dict[str, tuple[int, ...]]:
        """The constants of more than one float that nobody has asked for, with their shapes."""
        return {
            name: tuple(tensor.dims)
            for name, tensor in self.constants.items()
            if tensor.data_type in _DTYPES
            and math.prod(tensor.dims) > 1
            and id(tensor) not in self._read
        }

    def integers(self, name: str) -> list[int] | None:
        """A constant of integers in one row, as shapes and axes are; None of another kind."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.INT64 or len(tensor.dims) != 1:
            return None
        if tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return [int(value) for value in numpy_helper.to_array(tensor)]
        except (ValueError, TypeError) as error:  # of values that do not fit the dimensions
            handlers.pass_on(error)
            return None
