"""ONNX files of the forms that published models have: made alike, small and random.

Silero VAD's: an If for the sampling rate, an LSTM in each branch, weights in torch's order of
gates behind Slice, Concat and Unsqueeze, the state one input of the model. quantize_dynamic's:
onnxruntime's own operator. What onnxruntime gives is right.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import fastrnn
import fastrnn.onnx
from cases import TOLERANCE, assert_close, make
from fastrnn.onnx.write import attributes_of, node_weights

I, H = 3, 4


def value(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


class Body:
    """A graph that grows node by node; what it reads may be given by the graph around it."""

    def __init__(self, name):
        self.name, self.nodes, self.constants = name, [], []

    def constant(self, values, inline=False):
        name = f"{self.name}_c{len(self.constants)}{len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if inline:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.constants.append(tensor)
        return name

    def node(self, kind, *inputs, name="", outputs=1, gives="", domain="", **attributes):
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        found = [gives or f"{self.name}_{kind}_{len(self.nodes)}_{k}" for k in range(outputs)]
        made = helper.make_node(kind, names, found, name=name, domain=domain, **attributes)
        self.nodes.append(made)
        return found[0] if outputs == 1 else found

    def graph(self, outputs, inputs=()):
        values = [value(name) for name in outputs]
        return helper.make_graph(self.nodes, self.name, list(inputs), values, self.constants)


def in_torchs_order(body, array, axis=0):
    """torch's gates i, f, g, o, cut out and put together as i, o, f, g, as its exporter does."""
    name = body.constant(array, inline=True)
    many = array.shape[axis] // (4 * H)
    parts = []
    for half in range(many):
        for gate in (0, 3, 1, 2):
            at = (4 * half + gate) * H
            parts.append(
                body.node("Slice", name, np.array([at]), np.array([at + H]), np.array([axis]))
            )
    return body.node("Concat", *parts, axis=axis)


def branch(name, layer):
    """An LSTM as Silero VAD has it in each branch: o_NAME (B, H), s_NAME (2, B, H)."""
    body = Body(name)
    p = layer.parameters
    zero = np.array([0])
    W, R = (
        body.node("Unsqueeze", in_torchs_order(body, p[f"{part}_l0"]), zero)
        for part in ("weight_ih", "weight_hh")
    )
    both = np.concatenate([p["bias_ih_l0"], p["bias_hh_l0"]])
    B = body.node("Unsqueeze", body.node("Identity", in_torchs_order(body, both)), zero)
    h, c = (
        body.node("Unsqueeze", body.node("Gather", "state", np.int64(k), axis=0), zero)
        for k in (0, 1)
    )
    x = body.node("Unsqueeze", "input", zero)
    y, h_n, c_n = body.node(
        "LSTM", x, W, R, B, "", h, c, name="/decoder/rnn/LSTM", outputs=3, hidden_size=H
    )
    body.node("Squeeze", y, np.array([0, 1]), gives=f"o_{name}")
    body.node("Concat", h_n, c_n, axis=0, gives=f"s_{name}")
    return body.graph([f"o_{name}", f"s_{name}"])


def silero(path):
    """Its layers, of 16 kHz and of 8 kHz; it takes a frame a call, and its state."""
    layers = [make("LSTM", I, H, seed=k) for k in range(2)]
    outer = Body("outer")
    fast = outer.node("Equal", "sr", np.int64(16000))
    outer.node(
        "If", fast, outputs=2, name="If_0",
        then_branch=branch("fast", layers[0]), else_branch=branch("slow", layers[1]),
    )  # fmt: skip
    outer.nodes[-1].output[:] = ["output", "stateN"]
    graph = helper.make_graph(
        outer.nodes,
        "vad",
        [value("input"), value("state"), value("sr", TensorProto.INT64, [])],
        [value("output"), value("stateN")],
        outer.constants,
    )
    save(graph, path)
    return layers


def save(graph, path, *opsets):
    made = [helper.make_opsetid("", 17), *opsets]
    onnx.save(helper.make_model(graph, opset_imports=made, ir_version=9), path)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


PLACES = {16000: "If_0/then_branch/decoder/rnn/LSTM", 8000: "If_0/else_branch/decoder/rnn/LSTM"}


@pytest.mark.smoke
def test_nodes_in_branches_go_by_their_path(tmp_path):
    made = silero(tmp_path / "vad.onnx")
    layers = fastrnn.onnx.load(tmp_path / "vad.onnx")
    assert set(layers) == set(PLACES.values())
    for place, wanted in zip(PLACES.values(), made, strict=True):
        layer = layers[place]
        for name, array in wanted.parameters.items():
            np.testing.assert_array_equal(layer.parameters[name], array)
    with pytest.raises(ValueError, match=r"2 recurrent nodes.*'If_0/then_branch/decoder/rnn/LSTM'"):
        fastrnn.load(tmp_path / "vad.onnx")


@pytest.mark.parametrize("rate", PLACES)
@pytest.mark.parametrize("part", [False, True])
def test_one_branch_streams_as_onnxruntime_runs_it(rate, part, tmp_path):
    path = tmp_path / "vad.onnx"
    silero(path)
    prefix = PLACES[rate][:16] if part else PLACES[rate]  # also the path to it alone
    stream = fastrnn.load(path, prefix=prefix).stream()
    run, state = session(path), np.zeros((2, 1, H), np.float32)
    for x in np.random.default_rng(0).standard_normal((20, 1, I), dtype=np.float32):
        wanted, state = run.run(None, {"input": x, "state": state, "sr": np.array(rate)})
        assert_close(stream.step(x[0]), wanted[0], TOLERANCE["float32"])


def body_of_a_step(layer):
    body, parts = Body("step"), node_weights(layer, 0)
    x = body.node("Unsqueeze", "x_t", np.array([0]))
    y, h_n = body.node(
        "GRU", x, parts["W"], parts["R"], parts["B"], "", "h_in", outputs=2, name="rnn",
        **attributes_of(layer),
    )  # fmt: skip
    body.node("Squeeze", y, np.array([0, 1]), gives="y_t")
    body.node("Identity", h_n, gives="h_out")
    return body


def scan(layer):
    body = body_of_a_step(layer).graph(["h_out", "y_t"], [value("h_in"), value("x_t")])
    outer = Body("outer")
    outer.node("Scan", "h0", "x", outputs=2, name="loop", body=body, num_scan_inputs=1)
    return outer


def loop(layer):
    body = body_of_a_step(layer)
    body.nodes.insert(0, helper.make_node("Gather", ["x", "i"], ["x_t"], axis=0))
    body.node("Identity", "cond_in", gives="cond_out")
    given = [value("i", TensorProto.INT64, []), value("cond_in", TensorProto.BOOL, [])]
    made = body.graph(["cond_out", "h_out", "y_t"], [*given, value("h_in")])
    made.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    outer = Body("outer")
    many = outer.node("Gather", outer.node("Shape", "x"), np.int64(0), axis=0)
    outer.node("Loop", many, np.array(True), "h0", outputs=2, name="loop", body=made)
    return outer


@pytest.mark.parametrize("form", [scan, loop])
def test_a_layer_in_the_body_of_a_loop(form, tmp_path):
    made, path = make("GRU", I, H), tmp_path / "model.onnx"
    outer = form(made)
    outer.nodes[-1].output[:] = ["h_n", "y"]
    graph = helper.make_graph(
        outer.nodes, "g", [value("x"), value("h0")], [value("y"), value("h_n")], outer.constants
    )
    save(graph, path)
    (layer,) = fastrnn.onnx.load(path).values()
    assert list(fastrnn.onnx.load(path)) == ["loop/body/rnn"]
    x = np.random.default_rng(0).standard_normal((6, 1, I), dtype=np.float32)
    y, _ = session(path).run(None, {"x": x, "h0": np.zeros((1, 1, H), np.float32)})
    assert_close(fastrnn.load(path)(x)[0][:, 0], y.reshape(6, H), TOLERANCE["float32"])
    stream = layer.stream()
    found = np.stack([stream.step(row[0]).copy() for row in x])
    assert_close(found, y.reshape(6, H), TOLERANCE["float32"])


def behind(body, kind, array):
    """A value that is `array` behind one operator."""
    if kind == "Transpose":
        return body.node("Transpose", array.transpose(2, 0, 1).copy(), perm=[1, 2, 0])
    if kind == "Reshape":
        return body.node("Reshape", array.ravel(), np.array(array.shape))
    if kind == "Cast":
        return body.node("Cast", array.astype(np.float16), to=TensorProto.FLOAT)
    if kind == "Split":
        return body.node("Split", np.concatenate([array, array + 1]), outputs=2, axis=0)[0]
    if kind == "DequantizeLinear":
        q = np.clip(np.round(array * 50), -127, 127).astype(np.int8)
        return body.node("DequantizeLinear", q, np.float32(1 / 50), np.int8(0))
    if kind == "Squeeze":
        return body.node("Squeeze", array[None], np.array([0]))
    whole = np.concatenate([array, 2 * array], axis=1)
    last = np.array([array.shape[1]])
    return body.node("Slice", whole, np.array([0]), last, np.array([1]))


FOLDED = ["Transpose", "Reshape", "Cast", "Split", "DequantizeLinear", "Squeeze", "Slice"]


@pytest.mark.parametrize("kind", FOLDED)
def test_weights_behind_an_operator(kind, tmp_path):
    body, parts, path = Body("g"), node_weights(make("GRU", I, H), 0), tmp_path / "model.onnx"
    W, R, B = (
        behind(body, kind, parts[word]) if parts[word].ndim == 3 else parts[word]
        for word in ("W", "R", "B")
    )
    y, _ = body.node("GRU", "x", W, R, B, outputs=2, name="rnn", hidden_size=H)
    save(body.graph([y], [value("x")]), path)
    body.nodes[-1].attribute.add(name="linear_before_reset", type=2, i=1)
    save(body.graph([y], [value("x")]), path)
    layer = fastrnn.load(path)
    x = np.random.default_rng(0).standard_normal((5, 2, I), dtype=np.float32)
    wanted = session(path).run(None, {"x": x})[0][:, 0]
    assert_close(layer(x)[0], wanted, TOLERANCE["float32"])


def grown(body, W):
    """64 nodes that double what they take."""
    for _ in range(64):
        W = body.node("Concat", W, W, axis=0)
    return W


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda body, W: body.node("Mul", W, np.float32(1)), "it comes from a Mul"),
        (lambda body, W: body.node("Identity", "x"), "it comes from its input 'x'"),
        (lambda body, W: "nowhere", "is no constant of the model"),
        (grown, "of more than the file has"),
        (lambda body, W: body.node("Cast", W, to=TensorProto.STRING), "more than the file has"),
        (lambda body, W: body.node("Reshape", W, np.array([7, 7])), "by a Reshape that fails"),
        (
            lambda body, W: body.node("Identity", "circle", gives="circle"),
            "it is computed of itself",
        ),
        (
            lambda body, W: body.node(
                "DequantizeLinear", np.ones((4000, 1), np.int8), np.ones(5000, np.float32), axis=1
            ),
            "of more than the file has",
        ),
    ],
)
def test_weights_that_are_no_constants(made, message, tmp_path):
    body, parts, path = Body("g"), node_weights(make("GRU", I, H), 0), tmp_path / "model.onnx"
    W = made(body, body.constant(parts["W"]))
    y, _ = body.node("GRU", "x", W, parts["R"], parts["B"], outputs=2, name="rnn", hidden_size=H)
    save(body.graph([y], [value("x")]), path)
    with pytest.raises(ValueError, match=rf"(?s)model\.onnx.*GRU node 'rnn'.*{message}"):
        fastrnn.onnx.load(path)


def test_a_model_of_no_recurrent_node_says_what_it_has(tmp_path):
    body = Body("g")
    y = body.node("MatMul", body.node("Tanh", "x"), np.ones((3, 2), np.float32))
    save(body.graph([y], [value("x")]), tmp_path / "model.onnx")
    for load in (fastrnn.load, fastrnn.onnx.load):
        with pytest.raises(ValueError, match="no RNN, LSTM or GRU node, but MatMul, Tanh"):
            load(tmp_path / "model.onnx")


def test_recurrent_nodes_in_functions_are_named(tmp_path):
    body = Body("f")
    body.nodes.append(helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=H))
    function = helper.make_function(
        "own", "block", ["x", "w", "r"], ["y"], body.nodes, [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("block", ["x", "w", "r"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", [value(n) for n in "xwr"], [value("y")])
    made = helper.make_model(
        graph, functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    onnx.save(made, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"functions of its own \(LSTM in 'block'\).*inliner"):
        fastrnn.onnx.load(tmp_path / "model.onnx")


@pytest.fixture(scope="module", params=[False, True], ids=["per-tensor", "per-channel"])
def quantized(request, tmp_path_factory):
    """An LSTM in both directions, and what quantize_dynamic makes of it."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("quantized")
    layer = make("LSTM", I, H, bidirectional=True)
    fastrnn.onnx.save(layer, folder / "layer.onnx")
    model = onnx.load(folder / "layer.onnx")
    del model.metadata_props[:]  # as of another program
    onnx.save(model, folder / "layer.onnx")
    # In 7 bits: by weights of 8, sums of pairs overflow in onnxruntime where a CPU has no VNNI.
    quantization.quantize_dynamic(
        folder / "layer.onnx", folder / "quantized.onnx", per_channel=request.param,
        reduce_range=True,
    )  # fmt: skip
    kinds = {node.op_type for node in onnx.load(folder / "quantized.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in kinds
    return layer, folder / "quantized.onnx"


#: onnxruntime rounds x and h to 8 bits of their range, here 6 and 2, at each of 6 steps.
ROUNDED = 0.05


def test_integer_weights_become_floats(quantized):
    layer, path = quantized
    found = fastrnn.load(path)
    assert (type(found), found.bidirectional) == (fastrnn.LSTM, True)
    # 7 bits of weights from -1 / sqrt(H) to 1 / sqrt(H), and half a step off.
    step = 2 / np.sqrt(H) / 127
    for name, array in layer.parameters.items():
        np.testing.assert_allclose(found.parameters[name], array, atol=0.51 * step)
    x = np.random.default_rng(0).standard_normal((6, 2, I), dtype=np.float32)
    zeros = {name: np.zeros((2, 2, H), np.float32) for name in ("h_0", "c_0")}
    wanted = session(path).run(["y"], {"x": x, **zeros})[0]
    assert np.abs(found(x)[0] - wanted).max() < ROUNDED


def test_the_operator_of_integer_weights_runs(quantized):
    _, path = quantized
    x = np.random.default_rng(0).standard_normal((6, 2, I), dtype=np.float32)
    zeros = {name: np.zeros((2, 2, H), np.float32) for name in ("h_0", "c_0")}
    evaluator = ReferenceEvaluator(str(path), new_ops=fastrnn.onnx.OPS)
    y, h, c = evaluator.run(None, {"x": x, **zeros})
    wanted_y, (wanted_h, wanted_c) = fastrnn.load(path)(x)
    for found, wanted in ((y, wanted_y), (h, wanted_h), (c, wanted_c)):
        assert_close(found, wanted, TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("position", "message"),
    [(8, "input 'W_scale' is missing"), (1, "input 'W' is missing"), (10, "input 'R_scale' is")],
)
def test_integer_weights_that_are_not_whole(quantized, position, message, tmp_path):
    model = onnx.load(quantized[1])
    (node,) = (n for n in model.graph.node if n.op_type == "DynamicQuantizeLSTM")
    node.input[position] = ""
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=message):
        fastrnn.onnx.load(tmp_path / "model.onnx")


def test_a_gru_as_rnnoise_has_it(tmp_path):
    """ReLU, and the reset before the product."""
    body, parts, path = (
        Body("g"),
        node_weights(make("GRU-reset-before", I, H), 0),
        tmp_path / "m.onnx",
    )
    y, _ = body.node(
        "GRU", "x", parts["W"], parts["R"], parts["B"], outputs=2, name="rnn", hidden_size=H,
        activations=["Sigmoid", "Relu"],
    )  # fmt: skip
    save(body.graph([y], [value("x")]), path)
    layer = fastrnn.load(path)
    assert (layer.activation, layer.reset_after) == ("relu", False)
    np.testing.assert_array_equal(node_weights(layer, 0)["R"], parts["R"])


@pytest.mark.parametrize("moved", [False, True])
def test_peepholes_are_a_layer_s(moved, tmp_path):
    body, parts, path = Body("g"), node_weights(make("LSTM", I, H), 0), tmp_path / "m.onnx"
    peepholes = np.arange(3 * H, dtype=np.float32)[None]
    P = body.node("Unsqueeze", peepholes[0], np.array([0])) if moved else peepholes
    zero = np.zeros((1, 1, H), np.float32)
    y = body.node(
        "LSTM", "x", parts["W"], parts["R"], parts["B"], "", zero, zero, P, outputs=3, name="rnn",
        hidden_size=H,
    )[0]  # fmt: skip
    save(body.graph([y], [value("x")]), path)
    layer = fastrnn.load(path)
    assert layer.peepholes
    for name, rows in zip(("p_i", "p_o", "p_f"), np.split(peepholes[0], 3), strict=True):
        np.testing.assert_array_equal(layer.parameters[f"{name}_l0"], rows)


def repeated(body):
    """A learned state for a batch of any size."""
    width = body.node("Slice", body.node("Shape", "x"), *map(np.array, ([1], [2], [0])))
    shape = body.node("Concat", np.array([1]), width, np.array([H]), axis=0)
    return body.node("Expand", np.full((1, 1, H), 0.5, np.float32), shape)


@pytest.mark.parametrize(
    "made",
    [
        lambda body: body.constant(np.full((1, 1, H), 0.5, np.float32)),
        lambda body: body.node("Unsqueeze", np.full((1, H), 0.5, np.float32), np.array([0])),
        repeated,
    ],
)
def test_learned_initial_states_are_refused_by_name(made, tmp_path):
    body, parts, path = Body("g"), node_weights(make("GRU", I, H), 0), tmp_path / "m.onnx"
    y, _ = body.node(
        "GRU", "x", parts["W"], parts["R"], parts["B"], "", made(body), outputs=2, name="rnn",
        hidden_size=H, linear_before_reset=1,
    )  # fmt: skip
    save(body.graph([y], [value("x")]), path)
    for load in (fastrnn.load, fastrnn.onnx.load):
        with pytest.raises(ValueError, match="GRU node 'rnn': input 'initial_h' is a constant"):
            load(path)


@pytest.mark.filterwarnings("ignore")
def test_what_torch_scripts_in_a_branch(tmp_path):
    """torch's own exporter: a branch of a scripted module has an LSTM in it."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.LSTM(I, H), torch.nn.LSTM(I, H)

        def forward(self, x, fast: bool):
            if fast:
                y, _ = self.a(x)
            else:
                y, _ = self.b(x)
            return y

    module, path = torch.jit.script(Two().eval()), tmp_path / "model.onnx"
    x = torch.zeros(5, 2, I)
    torch.onnx.export(
        module, (x, torch.tensor(True)), path, dynamo=False, input_names=["x", "fast"],
        do_constant_folding=False,
    )  # fmt: skip
    layers = list(fastrnn.onnx.load(path).values())
    x = np.random.default_rng(0).standard_normal((5, 2, I), dtype=np.float32)
    with torch.no_grad():
        for layer, fast in zip(layers, (True, False), strict=True):
            wanted = module(torch.from_numpy(x), fast).numpy()
            assert_close(layer(x)[0], wanted, TOLERANCE["float32"])
