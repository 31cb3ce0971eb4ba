"""ONNX's RNN, LSTM and GRU on fastrnn's kernels, for the reference evaluator."""

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from fastrnn.arrays import Array
from fastrnn.device import kernels_for
from fastrnn.onnx.attributes import Node, check_names, parse, place
from fastrnn.onnx.file import QUANTIZED
from fastrnn.onnx.weights import Packed, check_weights, dequantized, shaped
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.rows import Rows

_DTYPES = ("float16", "bfloat16", "float32", "float64")


class _Recurrent(OpRun):  # type: ignore[misc]
    """What the three share; a subclass is named as its operator, as the evaluator wants it."""

    def __init__(self, onnx_node: Any, run_params: Any) -> None:
        super().__init__(onnx_node, run_params)
        kind = type(self).__name__
        self._where = place(kind, onnx_node.name)
        kind = "LSTM" if kind == QUANTIZED[1] else kind
        check_names(kind, self._where, [attribute.name for attribute in onnx_node.attribute])
        self._packed = Packed()

    def _run(self, *inputs: Any, **attributes: Any) -> tuple[Array, ...]:
        node = parse(type(self).__name__, self._where, attributes)
        return self._ran(node, *inputs)

    def _ran(self, node: Node, *inputs: Any) -> tuple[Array, ...]:
        """X, W, R, then those that may be left out: B, sequence_lens, initial_h, initial_c, P."""
        given = [*inputs, *[None] * (8 - len(inputs))]
        return run(node, self._packed, *given)[: len(self.onnx_node.output)]


class RNN(_Recurrent):
    """The operator RNN."""


class LSTM(_Recurrent):
    """The operator LSTM."""


class GRU(_Recurrent):
    """The operator GRU."""


class DynamicQuantizeLSTM(_Recurrent):
    """onnxruntime's LSTM of integer weights, which are made floats here; inputs stay what they are.

    onnxruntime rounds x and h to 8 bits at every step, too: its results are off by as much.
    """

    op_domain = QUANTIZED[0]

    def _run(self, *inputs: Any, **attributes: Any) -> tuple[Array, ...]:
        own: dict[str, Any] = {name: getattr(self, name) for name in self.attributes_names_}
        node = parse("LSTM", self._where, {**own, **attributes})
        X, W, R, *others = inputs
        others, scales = others[:5], [*others[5:], *[None] * 4][:4]
        w = self._floats("W", W, *scales[:2])
        r = self._floats("R", R, *scales[2:])
        return self._ran(node, X, w, r, *others)

    def _floats(self, name: str, q: Array, scale: Array | None, zero: Array | None) -> Array:
        if scale is None:
            raise ValueError(f"{self._where}: input '{name}_scale' is missing")
        return dequantized(self._where, name, q, scale, zero)


#: For `ReferenceEvaluator(model, new_ops=OPS)`.
OPS = [RNN, LSTM, GRU, DynamicQuantizeLSTM]


def run(
    node: Node,
    packed: Packed,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    lengths: Array | None,
    h: Array | None,
    c: Array | None,
    p: Array | None,
) -> tuple[Array, ...]:
    """Y, Y_h and, of an LSTM, Y_c, in the node's layout.

    float16 and bfloat16 are computed in float32, and rounded at the end. A row of length 0
    keeps its initial state. Raises ValueError for a shape or a type that does not fit.
    """
    kernels, where = kernels_for("cpu"), node.where
    for name, array in zip("XWRB", (x, w, r, b), strict=True):
        if array is not None and str(array.dtype) not in _DTYPES:
            raise ValueError(f"{where}: input {name!r} has dtype {array.dtype}, wanted floats")
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    D = len(node.reverse)
    I, H = check_weights(node, w, r, b)
    shaped(where, "X", x, ("B", "T", I) if node.batch_first else ("T", "B", I))
    x_rows = np.ascontiguousarray(x.swapaxes(0, 1) if node.batch_first else x, dtype)
    T, B, _ = x_rows.shape
    if p is not None:
        shaped(where, "P", p, (D, 3 * H))
    weights = packed.weights(node, dtype, (w, r, b, p))
    rows = Rows.whole(T, B) if lengths is None else _ragged(kernels, node, lengths, T, B)
    states = [_state(node, "initial_h", h, B, H, dtype)]
    if node.kind == "LSTM":
        states.append(_state(node, "initial_c", c, B, H, dtype))
    start, rest = np.ascontiguousarray(states[0]), np.empty((D, len(states) - 1, B, H), dtype)
    for k, state in enumerate(states[1:]):
        rest[:, k] = state
    final, final_rest = np.empty_like(start), np.empty_like(rest)
    y = np.empty((T, B, D * H), dtype)
    passes = [
        kernels.start_forward(
            weights[d], x_rows, start[d], rest[d], final[d], final_rest[d], rows, y, d * H,
            reverse=node.reverse[d], share=D,
        )
        for d in range(D)
    ]  # fmt: skip
    kernels.run([one.job for one in passes], sum(one.work for one in passes))
    found = [y.reshape(T, B, D, H).transpose(0, 2, 1, 3), final]
    if node.kind == "LSTM":
        found.append(final_rest[:, 0])
    if node.batch_first:
        found = [found[0].transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in found[1:])]
    return tuple(np.ascontiguousarray(array, x.dtype) for array in found)


def _ragged(kernels: Kernels, node: Node, lengths: Array, T: int, B: int) -> Any:
    shaped(node.where, "sequence_lens", lengths, (B,))
    wrong = lengths[(lengths < 0) | (lengths > T)]
    if lengths.dtype.kind not in "iu" or wrong.size:
        came = f"dtype {lengths.dtype}" if lengths.dtype.kind not in "iu" else str(wrong[0])
        raise ValueError(
            f"{node.where}: input 'sequence_lens' holds {came}, wanted integers from 0 to T = {T}"
        )
    return Rows(T, B, lengths.astype(np.int64))


def _state(node: Node, name: str, given: Array | None, B: int, H: int, dtype: Any) -> Array:
    D = len(node.reverse)
    if given is None:
        return np.zeros((D, B, H), dtype)
    shaped(node.where, name, given, (B, D, H) if node.batch_first else (D, B, H))
    return np.asarray(given.swapaxes(0, 1) if node.batch_first else given, dtype)
