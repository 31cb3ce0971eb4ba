"""An ONNX file: its graphs, one inside of the other, their nodes and their constants."""

import itertools
import math
import os
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from onnx import (
    AttributeProto,
    ModelProto,
    TensorProto,
    external_data_helper,
    helper,
    numpy_helper,
)

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
#: onnxruntime's LSTM of integer weights, which its quantize_dynamic writes.
QUANTIZED = ("com.microsoft", "DynamicQuantizeLSTM")
#: Graphs inside of each other, and in all: more than any program writes.
_DEEP, _MANY = 32, 1000


def is_one_of(node: Any, kinds: Collection[str]) -> bool:
    """Whether a node is one of these operators of ONNX's own."""
    return node.op_type in kinds and node.domain in ("", "ai.onnx")


def is_quantized(node: Any) -> bool:
    """Whether a node is onnxruntime's LSTM of integer weights."""
    return (node.domain, node.op_type) == QUANTIZED


def is_recurrent(node: Any) -> bool:
    """Whether a node is one that layers are made of."""
    return is_one_of(node, OPERATORS) or is_quantized(node)


class Graph:
    """A graph: the model's own, or the body of an If, Loop or Scan.

    place: where it is inside of the model, "" for the model's own. outer: the one around it.
    producers: by name of a value, the node that gives it. inputs: what is given from outside.
    """

    def __init__(self, proto: Any, outer: "Graph | None" = None, place: str = "") -> None:
        self.outer, self.place = outer, place
        self.nodes = list(proto.node)
        self.inputs = {value.name for value in proto.input}
        self.constants = {tensor.name: tensor for tensor in proto.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.output and node.attribute:
                self.constants.setdefault(node.output[0], _constant(node.attribute[0]))
        self.producers = {name: node for node in self.nodes for name in node.output if name}

    def of(self, name: str) -> "Graph | None":
        """The graph that gives a value: this one, or one around it."""
        graph: Graph | None = self
        while graph is not None and not (
            name in graph.constants or name in graph.producers or name in graph.inputs
        ):
            graph = graph.outer
        return graph

    def producer(self, name: str) -> Any:
        """The node that gives a value, or None."""
        graph = self.of(name)
        return None if graph is None else graph.producers.get(name)

    def constant(self, name: str) -> Any:
        """The constant of a name, or None."""
        graph = self.of(name)
        return None if graph is None else graph.constants.get(name)

    def inside(self) -> Iterator["Graph"]:
        """The graphs inside of its nodes, in the file's order."""
        for node in self.nodes:
            for attribute in node.attribute:
                bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else []
                for number, body in enumerate([*bodies, *attribute.graphs]):
                    word = attribute.name + (f"_{number}" if number else "")
                    name = (node.name or next(iter(node.output), "") or node.op_type).lstrip("/")
                    inner = "/".join(filter(None, (self.place, name, word)))
                    yield Graph(body, self, inner)


def _constant(attribute: Any) -> Any:
    """The tensor of a Constant's attribute, of which there are several kinds."""
    if attribute.name in ("value_float", "value_floats"):
        values = [attribute.f] if attribute.name == "value_float" else list(attribute.floats)
        array = np.array(values, np.float32)
    elif attribute.name in ("value_int", "value_ints"):
        values = [attribute.i] if attribute.name == "value_int" else list(attribute.ints)
        array = np.array(values, np.int64)
    else:
        return attribute.t
    return numpy_helper.from_array(array if attribute.name.endswith("s") else array[0])


class Recurrent(NamedTuple):
    """A recurrent node: the graph it stands in, and its name with the path to it."""

    graph: Graph
    proto: Any
    name: str

    @property
    def where(self) -> str:
        """How errors call it."""
        own = self.proto.name or next(iter(self.proto.output), "")
        inner = "/".join(filter(None, (self.graph.place, own.lstrip("/"))))
        return place(self.proto.op_type, inner if self.graph.place else own)


class File:
    """A parsed model.

    graphs: the model's own graph, and those inside. recurrent: all nodes that are RNN, LSTM or
    GRU, in the file's order, with those inside of other nodes.
    """

    def __init__(self, path: str) -> None:
        """Read a file.

        Raises OSError if it cannot be read, ValueError if it is no ONNX model, or would take more
        than any of its size.
        """
        data, self.budget = budgets.read(path)
        self.path, self.size = path, len(data)
        self._outside: set[str] = set()
        try:
            protobuf.check(data, ModelProto.DESCRIPTOR, self.budget, "the model")
        except MisfitError as error:
            raise ValueError(f"file {path!r} is no ONNX model: {error}") from None
        self._read: set[int] = set()  # constants that were asked for
        try:
            model = ModelProto.FromString(data)
            self.opsets = list(model.opset_import)
            self.metadata = {entry.key: entry.value for entry in model.metadata_props}
            self.graph = Graph(model.graph)
            self.graphs = list(self._walk(self.graph))
            self._functions = [
                (function.name, node.op_type)
                for function in model.functions
                for node in function.node
                if is_recurrent(node)
            ]
            self.recurrent = self._named()
        except MisfitError as error:
            raise ValueError(f"file {path!r}: {error}") from None
        except Exception as error:  # protobuf's own
            handlers.pass_on(error)
            raise ValueError(f"file {path!r} is no ONNX model: {error}") from error
        if not self.graph.nodes:
            raise ValueError(f"file {path!r} is no ONNX model, or has no nodes")

    def check_time(self) -> None:
        """Raise ValueError where reading has taken longer than it may."""
        try:
            self.budget.take(0, "how its nodes are joined")
        except MisfitError as error:
            raise ValueError(f"file {self.path!r}: {error}") from None

    def _walk(self, graph: Graph) -> Iterator[Graph]:
        """A graph and all inside of it."""
        todo, many = [(graph, 0)], 0
        while todo:
            one, deep = todo.pop()
            yield one
            inside = []
            for inner in one.inside():
                many += 1
                self.budget.take(4 * len(inner.place), "its graphs")
                if deep > _DEEP or many > _MANY:
                    raise MisfitError("it has more graphs in it than any model")
                inside.append((inner, deep + 1))
            todo += reversed(inside)

    def _named(self) -> list[Recurrent]:
        """The recurrent nodes, each by a name of its own."""
        every = [(g, node) for g in self.graphs for node in g.nodes if is_recurrent(node)]
        for graph, node in every:
            self.budget.take(4 * (3 * len(graph.place) + len(node.name)), "its names")
        given = [_path(graph, node.name) for graph, node in every]
        taken, used, found = set(given), set(), []
        for (graph, node), name in zip(every, given, strict=True):
            if not node.name or name in used:
                first = _path(graph, next((output for output in node.output if output), "node"))
                numbered = (f"{first}_{number}" for number in itertools.count(1))
                free = itertools.chain((first,), numbered)
                name = next(one for one in free if one not in taken)
                taken.add(name)
            used.add(name)
            found.append(Recurrent(graph, node, name))
        return found

    def check_functions(self) -> None:
        """Raise ValueError for recurrent nodes in functions of the file's own."""
        if self._functions:
            told = ", ".join(f"{kind} in {name!r}" for name, kind in self._functions[:8])
            raise ValueError(
                f"file {self.path!r} has recurrent nodes in functions of its own ({told}); write "
                "it anew with onnx.inliner.inline_local_functions"
            )

    def values(self, where: str, name: str, tensor: Any) -> Array:
        """The values of a tensor that stands anywhere in the model, in a float type."""
        dtype = _DTYPES.get(tensor.data_type)
        if dtype is None:
            raise ValueError(f"file {self.path!r}: {where}: {name!r} is no array of floats")
        return self.whole(where, tensor, name).astype(dtype)

    def whole(self, where: str, tensor: Any, name: str = "") -> Array:
        """The same in whatever type it has."""
        name = name or tensor.name
        self._read.add(id(tensor))
        outside = tensor.data_location == TensorProto.EXTERNAL
        # Every value takes at least half a byte of the file; dimensions alone must not ask for
        # memory.
        size = math.prod(tensor.dims)
        if any(dim < 0 for dim in tensor.dims) or (size > 2 * self.size and not outside):
            raise ValueError(
                f"file {self.path!r}: {where}: {name!r} has dimensions {list(tensor.dims)}, more "
                "than its values"
            )
        try:
            if outside:
                self._load(tensor, size)
            self.budget.take(8 * size, f"{where}: {name!r}")
            return np.asarray(numpy_helper.to_array(tensor))
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
        length = size * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
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

    def integers(self, graph: Graph, name: str) -> list[int] | None:
        """A constant of integers in one row, as shapes and axes are; None of another kind."""
        tensor = graph.constant(name)
        if tensor is None or tensor.data_type != TensorProto.INT64 or len(tensor.dims) != 1:
            return None
        if tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            return [int(value) for value in numpy_helper.to_array(tensor)]
        except (ValueError, TypeError) as error:  # of values that do not fit the dimensions
            handlers.pass_on(error)
            return None

    def unread(self) -> dict[str, tuple[int, ...]]:
        """The constants of more than one float that nobody has asked for, with their shapes."""
        found: dict[str, tuple[int, ...]] = {}
        for graph in self.graphs:
            for name, tensor in graph.constants.items():
                floats = tensor.data_type in _DTYPES and math.prod(tensor.dims) > 1
                if floats and id(tensor) not in self._read and len(found) < _MANY:
                    found[_path(graph, name)] = tuple(tensor.dims)
        return found


def _path(graph: Graph, name: str) -> str:
    """A name with the path to the graph that it stands in."""
    return f"{graph.place}/{name.lstrip('/')}" if graph.place else name
