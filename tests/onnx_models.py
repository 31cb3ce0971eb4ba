"""Random nodes of ONNX's recurrent operators, and what the three who know them say."""

from dataclasses import dataclass, field

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import fastrnn.onnx
import onnx_reference

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
USUAL = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


@dataclass
class Case:
    """A node, and values for the inputs that it has.

    functions: of one direction, (name, alpha, beta), None for a default; both directions have
    the same but where there are twice as many.
    """

    kind: str
    inputs: dict[str, np.ndarray]
    attributes: dict
    functions: list = field(default_factory=list)

    def model(self):
        kind = TensorProto.DOUBLE if self.inputs["X"].dtype == np.float64 else TensorProto.FLOAT
        values = []
        for name, array in self.inputs.items():
            number = TensorProto.INT32 if name == "sequence_lens" else kind
            values.append(helper.make_tensor_value_info(name, number, array.shape))
        used = [name if name in self.inputs else "" for name in INPUTS]
        while not used[-1]:
            used.pop()
        outputs = ["Y", "Y_h", "Y_c"] if self.kind == "LSTM" else ["Y", "Y_h"]
        node = helper.make_node(self.kind, used, outputs, name="one", **self.attributes)
        found = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph([node], "one", values, found)
        opsets = [helper.make_opsetid("", 14)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=7)

    def fastrnn(self):
        return ReferenceEvaluator(self.model(), new_ops=fastrnn.onnx.OPS).run(None, self.inputs)

    def onnxruntime(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, self.inputs)

    def reference(self):
        """In float64, by `onnx_reference`, in the node's layout."""
        given = {name: array.astype(np.float64) for name, array in self.inputs.items()}
        direction = self.attributes.get("direction", "forward")
        reverse = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        batch_first = self.attributes.get("layout", 0)
        x = given["X"].swapaxes(0, 1) if batch_first else given["X"]
        (T, B, _), (D, _, H) = x.shape, given["R"].shape
        states = []
        for name in ("initial_h", "initial_c")[: 1 + (self.kind == "LSTM")]:
            state = given.get(name, np.zeros((B, D, H) if batch_first else (D, B, H)))
            states.append(state.swapaxes(0, 1) if batch_first else state)
        functions = self.functions or [(name, None, None) for name in USUAL[self.kind]]
        functions = [lambda a, f=f: onnx_reference.ACTIVATIONS[f[0]](a, *f[1:]) for f in functions]
        many = len(USUAL[self.kind])
        y, final = onnx_reference.run(
            self.kind,
            x,
            given["W"],
            given["R"],
            given.get("B", np.zeros((D, 2 * GATES[self.kind] * H))),
            self.inputs.get("sequence_lens", np.full(B, T)),
            states,
            given.get("P", np.zeros((D, 3 * H))),
            [functions[d * many :][:many] or functions[:many] for d in range(D)],
            self.attributes.get("clip"),
            reverse,
            self.attributes.get("input_forget", 0) or self.attributes.get("linear_before_reset", 0),
        )
        if batch_first:
            return [y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in final)]
        return [y, *final]


def random_case(kind, seed, *, dtype=np.float32, peepholes=False, functions=(), layout=0, **given):
    """A node with some of the optional inputs, in some direction, of some sizes.

    given: attributes; a direction among them stays.
    """
    rng = np.random.default_rng(seed)
    T, B, I = (int(rng.integers(1, size)) for size in (7, 6, 9))
    H = int(rng.choice([1, 5, 16, 23]))
    chosen = str(rng.choice(["forward", "reverse", "bidirectional"]))
    attributes = {"direction": chosen, "hidden_size": H, **given}
    D, G = 1 + (attributes["direction"] == "bidirectional"), GATES[kind]
    if layout:
        attributes["layout"] = 1
    if functions:
        repeated = list(functions) * (D if len(functions) == len(USUAL[kind]) else 1)
        attributes["activations"] = [name for name, _, _ in repeated]
        for place, attribute in ((1, "activation_alpha"), (2, "activation_beta")):
            # Of an RNN a value for each direction, else for each that takes one.
            values = [f[place] for f in repeated]
            if any(value is not None for value in values):
                kept = [value for value in values if value is not None or kind == "RNN"]
                attributes[attribute] = [value or 0.0 for value in kept]

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    states = (B, D, H) if layout else (D, B, H)
    inputs = {
        "X": normal(B, T, I) if layout else normal(T, B, I),
        "W": normal(D, G * H, I) / np.sqrt(I, dtype=dtype),
        "R": normal(D, G * H, H) / np.sqrt(H, dtype=dtype),
    }
    if rng.random() < 0.7:
        inputs["B"] = normal(D, 2 * G * H)
    if rng.random() < 0.5:
        inputs["sequence_lens"] = rng.integers(1, T + 1, B).astype(np.int32)
    if rng.random() < 0.7:
        inputs["initial_h"] = normal(*states)
    if kind == "LSTM" and rng.random() < 0.7:
        inputs["initial_c"] = normal(*states)
    if peepholes:
        inputs["P"] = normal(D, 3 * H)
    return Case(kind, inputs, attributes, list(functions))
