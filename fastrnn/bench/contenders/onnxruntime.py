"""onnxruntime: a model of one recurrent node, its weights constant, its state in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.data import Array, Sample, answer, weights

#: Where ONNX's gates (LSTM i, o, f, c; GRU z, r, h) stand in torch's order.
ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
#: 2021's: every operator set and file version since then reads it.
OPSET, IR_VERSION = 14, 7


def _reordered(case: Case, array: Array) -> Array:
    gates = np.split(array, len(ORDER[case.cell]))
    return np.concatenate([gates[gate] for gate in ORDER[case.cell]])


def model(case: Case) -> bytes:
    """The case as an ONNX model; shapes are fixed, so that it can plan its memory."""
    T, B, I, H = case.shape
    states = ["h", "c"] if case.cell == "lstm" else ["h"]
    by_name = {name: _reordered(case, array) for name, array in weights(case).items()}
    constants = {
        "W": by_name["weight_ih"],
        "R": by_name["weight_hh"],
        "B": np.concatenate([by_name["bias_ih"], by_name["bias_hh"]]),
    }
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (T, B, I))]
    if case.lengths is not None:
        given.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, (B,)))
    given += [helper.make_tensor_value_info(s, TensorProto.FLOAT, (1, B, H)) for s in states]
    found = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (T, 1, B, H))]
    found += [helper.make_tensor_value_info(f"{s}_n", TensorProto.FLOAT, (1, B, H)) for s in states]
    node = helper.make_node(
        case.cell.upper(),
        ["x", *constants, "lengths" if case.lengths is not None else "", *states],
        [value.name for value in found],
        hidden_size=H,
        **({"linear_before_reset": 1} if case.cell == "gru" else {}),
    )
    graph = helper.make_graph(
        [node],
        case.cell,
        given,
        found[1:] if case.stepwise else found,
        [numpy_helper.from_array(array[None], name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return bytes(made.SerializeToString())


class Session:
    """An inference session that NumPy arrays go into and come out of."""

    def __init__(self, case: Case, threads: int) -> None:
        self.case = case
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model(case), options, providers=["CPUExecutionProvider"]
        )

    def load(self, sample: Sample) -> dict[str, Any]:
        """The session's feed."""
        x = sample.x[None] if self.case.stepwise else sample.x
        feed: dict[str, Any] = {"x": x}
        feed |= {name: array[None] for name, array in zip("hc", sample.state, strict=False)}
        if sample.lengths is not None:
            feed["lengths"] = sample.lengths.astype(np.int32)
        return feed

    def run(self, feed: dict[str, Any]) -> Any:
        """One inference."""
        return self.session.run(None, feed)

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names, without the axis of directions."""
        if self.case.stepwise:
            return answer(None, [part[0] for part in result])
        y, *state = result
        return answer(y[:, 0], [part[0] for part in state])


def build(case: Case, threads: int, device: str) -> Program:
    """The case as an onnxruntime session."""
    return Session(case, threads)
