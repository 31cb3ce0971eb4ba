"""ONNX files of other programs: what is a layer's levels is loaded, and what is not is refused."""

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import fastrnn
import fastrnn.onnx
from cases import TOLERANCE, assert_close, make
from fastrnn.onnx.write import attributes_of, node_weights

I, H = 3, 4


class Graph:
    """A model that grows node by node; x (T, B, I) is what it takes."""

    def __init__(self):
        self.nodes, self.constants, self.given = [], [], {"x": (5, 2, I)}

    def constant(self, values):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def input(self, name, *shape):
        self.given[name] = shape
        return name

    def node(self, kind, *inputs, outputs=1, name="", **attributes):
        """Its outputs' names; what is no name among the inputs is a constant."""
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        found = [f"{name or kind}{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, found, name=name, **attributes))
        return found[0] if outputs == 1 else found

    def gru(self, layer, x, state="", name=""):
        parts = node_weights(layer, 0)
        return self.node(
            "GRU", x, parts["W"], parts["R"], parts["B"], "", state, outputs=2, name=name,
            **attributes_of(layer),
        )  # fmt: skip

    def save(self, path, output):
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in self.given.items()
        ]
        last = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * 4)]
        graph = helper.make_graph(self.nodes, "g", values, last, self.constants)
        opsets = [helper.make_opsetid("", 14)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=7)
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def run(self, path, x):
        """The output, with every state zero."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        zeros = {n: np.zeros(shape, np.float32) for n, shape in self.given.items()}
        return session.run(None, zeros | {"x": x})[0]


def values():
    return np.random.default_rng(0).standard_normal((5, 2, I), dtype=np.float32)


def levels(graph, between, directions=1, state="", second=None):
    """Two GRUs with nodes between them; Y of the second."""
    both = directions == 2
    at, last = graph.gru(make("GRU", I, H, bidirectional=both), "x", state, name="first")
    for kind, *inputs, attributes in between:
        at = graph.node(kind, at, *inputs, **attributes)
    after = make("GRU", H * directions, H, seed=1, bidirectional=both)
    return graph.gru(after, at, last if second == "Y_h" else second or "", name="second")[0]


SQUEEZE = ("Squeeze", np.array([1]), {})
TOGETHER = ("Transpose", {"perm": [0, 2, 1, 3]})
BATCH_FIRST = ("Transpose", {"perm": [1, 0, 2]})


def reshape(*shape, **attributes):
    return ("Reshape", np.array(shape), attributes)


@pytest.mark.parametrize(
    ("directions", "between"),
    [
        (1, [SQUEEZE]),
        (1, [("Squeeze", np.array([-3]), {}), ("Identity", {})]),
        (1, [TOGETHER, reshape(0, 0, -1), ("Dropout", {})]),
        (1, [SQUEEZE, BATCH_FIRST, BATCH_FIRST]),  # of two modules with batch_first
        (2, [TOGETHER, reshape(0, 0, -1)]),
        (2, [TOGETHER, reshape(0, 0, 2 * H)]),
    ],
)
def test_levels_of_a_layer(directions, between, tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    graph.save(path, levels(graph, between, directions))
    layer = fastrnn.load(path)
    assert (layer.num_layers, layer.directions) == (2, directions)
    wanted = graph.run(path, values()).transpose(0, 2, 1, 3).reshape(5, 2, -1)
    assert_close(layer(values())[0], wanted, TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("directions", "between"),
    [
        (1, [SQUEEZE, BATCH_FIRST]),
        (1, [reshape(0, -1, H)]),
        (1, [SQUEEZE, reshape(2, 5, H)]),
        (1, [SQUEEZE, ("Relu", {})]),
        (1, [TOGETHER, ("Squeeze", np.array([2]), {}), ("Transpose", {})]),
        (1, [TOGETHER, reshape(0, 0, -1, allowzero=1)]),
        (1, []),
        (2, [reshape(0, 0, -1)]),
        (2, [("Transpose", {"perm": [0, 2, 3, 1]}), reshape(0, 0, -1)]),
    ],
)
def test_what_gives_other_values_is_no_level(directions, between, tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    graph.save(path, levels(graph, between, directions))
    with pytest.raises(ValueError, match=r"model.onnx' has 2 recurrent nodes, wanted one"):
        fastrnn.load(path)
    assert list(fastrnn.onnx.load(path)) == ["first", "second"]


def test_a_circle_is_no_chain(tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    graph.save(path, levels(graph, [SQUEEZE, ("Identity", {})]))
    model = onnx.load(path)
    model.graph.node[1].input[0] = model.graph.node[2].output[0]
    onnx.save(model, path)
    with pytest.raises(ValueError, match="2 recurrent nodes"):
        fastrnn.load(path)


def split(graph):
    return graph.node("Split", graph.input("h", 2, 2, H), outputs=2, axis=0)


def sliced(graph):
    whole = graph.input("h", 2, 2, H)
    return [graph.node("Slice", whole, *map(np.array, ([k], [k + 1], [0]))) for k in range(2)]


def zeros(graph):
    """As programs make them where the batch's size is not known."""
    width = graph.node("Slice", graph.node("Shape", "x"), *map(np.array, ([1], [2], [0])))
    shape = graph.node("Concat", np.array([1]), width, np.array([H]), axis=0)
    expanded = graph.node("Expand", np.zeros((1, 1, 1), np.float32), shape)
    return [graph.node("ConstantOfShape", shape), expanded]


@pytest.mark.parametrize("make_states", [split, sliced, zeros])
def test_states_that_a_caller_may_give(make_states, tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    first, second = make_states(graph)
    graph.save(path, levels(graph, [SQUEEZE], state=first, second=second))
    wanted = graph.run(path, values())[:, 0]
    assert_close(fastrnn.load(path)(values())[0], wanted, TOLERANCE["float32"])


def ones(graph):
    value = numpy_helper.from_array(np.ones(1, np.float32))
    return graph.node("ConstantOfShape", np.array([1, 2, H]), value=value)


@pytest.mark.parametrize(
    "state",
    [
        lambda graph: "Y_h",  # an encoder's, for its decoder
        ones,
        lambda graph: graph.node("Expand", np.float32(0.5), np.array([1, 2, H])),
        lambda graph: graph.node("Tanh", graph.input("h", 1, 2, H)),
        lambda graph: graph.node("Slice", "x", *map(np.array, ([0], [1], [0]))),
        lambda graph: graph.node("Concat", zeros(graph)[0], ones(graph), axis=0),
    ],
)
def test_a_state_that_the_model_computes_is_another_model(state, tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    graph.save(path, levels(graph, [SQUEEZE], second=state(graph)))
    with pytest.raises(ValueError, match=r"model.onnx.*GRU node 'second': input 'initial_h' is"):
        fastrnn.load(path)


def test_a_single_node_with_a_computed_state(tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    state = graph.node("Tanh", graph.input("h", 1, 2, H))
    graph.save(path, graph.gru(make("GRU", I, H), "x", state, name="one")[0])
    with pytest.raises(ValueError, match="GRU node 'one': input 'initial_h' is computed"):
        fastrnn.load(path)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("both", [False, True])
def test_what_torch_exports(both, kind, given, tmp_path):
    module = getattr(torch.nn, kind)(I, H, 2, bidirectional=both, batch_first=True).eval()
    x = torch.from_numpy(values())
    state = torch.zeros(4 if both else 2, 5, H)
    states = ((state, state) if kind == "LSTM" else state,) if given else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about this exporter and the batch's size
        torch.onnx.export(module, (x, *states), tmp_path / "model.onnx", dynamo=False)
    layer = fastrnn.load(tmp_path / "model.onnx")
    assert (type(layer).__name__, layer.num_layers, layer.bidirectional) == (kind, 2, both)
    with torch.no_grad():
        wanted = module(x)[0].numpy().swapaxes(0, 1)
    assert_close(layer(values().swapaxes(0, 1))[0], wanted, TOLERANCE["float32"])


def test_no_node_is_lost_to_the_name_of_another(tmp_path):
    graph, path = Graph(), tmp_path / "model.onnx"
    made = [make("GRU", I, H, seed=k) for k in range(4)]
    for layer, name in zip(made, ("a", "", "a", "b"), strict=True):
        last = graph.gru(layer, "x", name=name)[0]
    graph.nodes[1].output[0] = "b"
    graph.nodes[2].output[0] = "b_1"
    graph.save(path, last)
    layers = fastrnn.onnx.load(path)
    assert list(layers) == ["a", "b_1", "b_1_1", "b"]
    for layer, wanted in zip(layers.values(), made, strict=True):
        np.testing.assert_array_equal(
            layer.parameters["weight_hh_l0"], wanted.parameters["weight_hh_l0"]
        )
