"""Values that a model computes of its constants, by onnx's own reference evaluator.

Programs put weights behind a few operators that move them or change their type, and leave it to
the runtime to fold these. Only those operators are run here: each gives at most as many values as
it takes, so that a small file makes no large array.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fastrnn.arrays import Array
from fastrnn.files.errors import MisfitError
from fastrnn.onnx.file import File, Graph
from fastrnn_kernels import handlers

#: Operators that are run, of ONNX's own.
_FOLDED = (
    "Cast", "Concat", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
#: Nodes behind one value.
_NODES = 500


def array(file: File, graph: Graph, where: str, name: str) -> Array:
    """A value in a float type of NumPy's: a constant's, or what is computed of constants alone.

    Raises ValueError that names the value if it depends on anything else.
    """
    tensor = graph.constant(name)
    if tensor is not None:
        return file.values(where, name, tensor)
    found = numbers(file, graph, where, name)
    if found.dtype.kind != "f" and found.dtype.name != "bfloat16":
        raise ValueError(f"file {file.path!r}: {where}: {name!r} is no array of floats")
    return found.astype("float64" if found.dtype == np.float64 else "float32", copy=False)


def numbers(file: File, graph: Graph, where: str, name: str) -> Array:
    """The same in whatever type it has."""
    tensor = graph.constant(name)
    if tensor is not None:
        return file.whole(where, tensor, name)
    return _Folding(file, where, name).run(graph, name)


class _Folding:
    def __init__(self, file: File, where: str, name: str) -> None:
        self._file, self._where, self._wanted = file, where, name
        self._known: dict[tuple[int, str], Array] = {}

    def _error(self, text: str) -> ValueError:
        return ValueError(f"file {self._file.path!r}: {self._where}: {self._wanted!r} {text}")

    def run(self, graph: Graph, name: str) -> Array:
        """Each node once all that it reads is known."""
        todo, begun = [(graph, name)], set()
        while todo:
            graph, name = todo[-1]
            owner = graph.of(name)
            if owner is None:
                raise self._error("is no constant of the model")
            key = id(owner), name
            if key in self._known:
                todo.pop()
                continue
            tensor = owner.constants.get(name)
            if tensor is not None:
                self._keep(key, self._file.whole(self._where, tensor, name))
                continue
            node = owner.producers.get(name)
            if node is None:
                raise self._error(f"is no constant of the model: it comes from its input {name!r}")
            if node.op_type not in _FOLDED or node.domain not in ("", "ai.onnx", "com.microsoft"):
                raise self._error(f"is no constant of the model: it comes from a {node.op_type}")
            needed = [(owner, one) for one in node.input if one]
            missing = [one for one in needed if (id(one[0].of(one[1])), one[1]) not in self._known]
            if missing and id(node) in begun:
                raise self._error("is no constant of the model: it is computed of itself")
            if missing:
                begun.add(id(node))
                if len(begun) > _NODES:
                    raise self._error(f"is behind more than {_NODES} nodes")
                todo += missing
                continue
            given = [None if not one else self._of(owner, one) for one in node.input]
            for output, array in zip(node.output, self._evaluated(node, given), strict=False):
                self._keep((id(owner), output), np.asarray(array))
        return self._known[id(graph.of(name)), name]

    def _of(self, graph: Graph, name: str) -> Array:
        return self._known[id(graph.of(name)), name]

    def _keep(self, key: tuple[int, str], array: Array) -> None:
        self._take(2 * array.nbytes)
        self._known[key] = array

    def _take(self, size: int) -> None:
        try:
            self._file.budget.take(size, "it")
        except MisfitError:
            raise self._error("is computed of more than the file has") from None

    def _evaluated(self, node: Any, given: Sequence[Array | None]) -> Sequence[Array]:
        from onnx.reference import ReferenceEvaluator

        most = 8 * sum(array.size for array in given if array is not None)
        to_text = any(a.name == "to" and a.i == TensorProto.STRING for a in node.attribute)
        if most > self._file.budget.left or to_text or not _even(node, given):
            raise self._error(f"is computed by a {node.op_type} of more than the file has")
        opsets = self._file.opsets
        if node.op_type == "DequantizeLinear":  # which the evaluator has from this version on
            node, version = (
                _as_onnxs_own(node),
                max([19, *(o.version for o in opsets if not o.domain)]),
            )
            opsets = [helper.make_opsetid("", version)]
        feeds = {n: a for n, a in zip(node.input, given, strict=True) if a is not None}
        graph = helper.make_graph(
            [node],
            "folded",
            [helper.make_empty_tensor_value_info(name) for name in feeds],
            [helper.make_empty_tensor_value_info(name) for name in node.output],
        )
        model = helper.make_model(graph, opset_imports=opsets)
        try:
            found: Sequence[Array] = ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # NumPy's, and the evaluator's own
            handlers.pass_on(error)
            raise self._error(f"is computed by a {node.op_type} that fails: {error}") from None
        return found


def _even(node: Any, given: Sequence[Array | None]) -> bool:
    """Whether a scale is no larger than what it scales."""
    if node.op_type != "DequantizeLinear":
        return True
    x, *others = given
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if x is None or not others or others[0] is None:
        return False
    for other in others:
        if other is None or other.size == 1:
            continue
        along = x.ndim and other.shape == (x.shape[axis % x.ndim],)
        blocks = other.ndim == x.ndim and all(np.less_equal(other.shape, x.shape))
        if not along and not blocks:
            return False
    return True


def _as_onnxs_own(node: Any) -> Any:
    """A node that onnxruntime has under its own name, too."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.domain = ""
    return copy
