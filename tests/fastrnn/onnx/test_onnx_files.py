"""ONNX models from layers, which onnxruntime runs, and layers from ONNX models."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import fastrnn
import fastrnn.onnx
from cases import CELLS, TOLERANCE, as_state, assert_close, make, problem, states
from fastrnn.onnx.attributes import parse
from onnx_models import random_case


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(model, x, parts, prefix=""):
    return {"x": x} | {
        f"{prefix}{letter}_0": part for letter, part in zip("hc", parts, strict=False)
    }


@pytest.mark.parametrize("stack", [(1, False), (2, True), (3, False)])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_onnxruntime_runs_a_layer(cell, batch_first, stack, tmp_path):
    layers, both = stack
    layer = make(cell, 5, 7, layers, bidirectional=both, batch_first=batch_first, bias=layers < 3)
    path = tmp_path / "layer.onnx"
    fastrnn.onnx.save(layer, path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    run = session(path)
    for T, B in ((4, 3), (1, 1), (9, 2)):  # one model, any sizes
        p = problem(layer, T, B)
        p = p.swap() if batch_first else p
        y, state = layer(p.x, as_state(p.state))
        found = run.run(None, feed(layer, p.x, p.state))
        for name, array, wanted in zip("yhc", found, (y, *states(state)), strict=False):
            assert_close(array, wanted, TOLERANCE["float32"], name)
        assert len(found) == 1 + len(p.state)


def test_float64_by_the_reference_evaluator(tmp_path):
    layer = make("GRU", 3, 5, dtype="float64")
    fastrnn.onnx.save(layer, tmp_path / "layer.onnx")
    p = problem(layer, 6, 2)
    evaluator = ReferenceEvaluator(str(tmp_path / "layer.onnx"), new_ops=fastrnn.onnx.OPS)
    y, h = evaluator.run(None, feed(layer, p.x, p.state))
    wanted_y, wanted_h = layer(p.x, as_state(p.state))
    assert_close(y, wanted_y, TOLERANCE["float64"], "y")
    assert_close(h, wanted_h, TOLERANCE["float64"], "h")


@pytest.mark.smoke
def test_a_sequential_and_its_way_back(tmp_path):
    model = fastrnn.Sequential(
        make("LSTM", 3, 5, 2, bidirectional=True),
        make("GRU", 10, 4),
        fastrnn.Linear(4, 2, activation="sigmoid", seed=0),
    )
    path = tmp_path / "model.onnx"
    fastrnn.onnx.save(model, path)
    x = np.random.default_rng(0).standard_normal((6, 2, 3), dtype=np.float32)
    y, ((h, c), h_gru) = model(x)
    zeros = {"0.h_0": 0 * h, "0.c_0": 0 * c, "1.h_0": 0 * h_gru}
    found = session(path).run(["y", "0.h_n", "0.c_n", "1.h_n"], {"x": x, **zeros})
    for array, wanted in zip(found, (y, h, c, h_gru), strict=True):
        assert_close(array, wanted, TOLERANCE["float32"])
    again = fastrnn.load(path)
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again(x)[0], y)


@pytest.mark.parametrize("cell", CELLS)
def test_the_way_back_is_exact(cell, tmp_path):
    layer = make(cell, 5, 7, 2, bidirectional=True, batch_first=True)
    fastrnn.onnx.save(layer, tmp_path / "layer.onnx")
    again = fastrnn.load(tmp_path / "layer.onnx")
    assert repr(again) == repr(layer)
    for name, array in layer.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], array)


def test_what_onnx_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="proj_size=3, and ONNX has no projection"):
        fastrnn.onnx.save(make("LSTM", 5, 7, proj_size=3), tmp_path / "no.onnx")
    with pytest.raises(TypeError, match="model is a LSTMCell, wanted RNN, LSTM, GRU"):
        fastrnn.onnx.save(fastrnn.LSTMCell(3, 4), tmp_path / "no.onnx")
    assert not list(tmp_path.iterdir())


KINDS = {
    "RNN": {"kind": "RNN"},
    "RNN-relu": {"kind": "RNN", "functions": [("Relu", None, None)]},
    "LSTM": {"kind": "LSTM"},
    "GRU": {"kind": "GRU", "linear_before_reset": 1},
    "GRU-reset-before": {"kind": "GRU", "linear_before_reset": 0},
}


def constant(case, name="one"):
    """The case's model with its weights as constants."""
    model = case.model()
    for word in ("W", "R", "B", "P"):
        if word in case.inputs:
            tensor = numpy_helper.from_array(case.inputs[word], word)
            model.graph.initializer.append(tensor)
    model.graph.node[0].name = name
    return model


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_layers_of_foreign_models(name, layout, direction, tmp_path):
    case = random_case(seed=7, direction=direction, layout=layout, **KINDS[name])
    path = tmp_path / "model.onnx"
    onnx.save(constant(case), path)
    (layer,) = fastrnn.onnx.load(path).values()
    assert layer.bidirectional == (direction == "bidirectional")
    assert layer.batch_first == bool(layout)
    # The node's states, directions second with layout 1, as the layer has them.
    given = {n: a.swapaxes(0, 1) if layout else a for n, a in case.inputs.items() if "init" in n}
    x, H = case.inputs["X"], layer.hidden_size
    zeros = np.zeros((layer.directions, x.shape[0 if layout else 1], H), np.float32)
    parts = [given.get("initial_h", zeros), given.get("initial_c", zeros)][: len(states_of(layer))]
    y, state = layer(x, as_state(parts), lengths=case.inputs.get("sequence_lens"))
    wanted = case.reference()
    whole = wanted[0] if layout else wanted[0].transpose(0, 2, 1, 3)  # directions together
    assert_close(y, whole.reshape(y.shape), TOLERANCE["float32"], "y")
    for found, right in zip(states(state), wanted[1:], strict=True):
        assert_close(found, right.swapaxes(0, 1) if layout else right, TOLERANCE["float32"])
    single = fastrnn.load(path)
    assert repr(single) == repr(layer)


def states_of(layer):
    return layer._cell.states


def test_several_nodes_go_by_their_names(tmp_path):
    model = constant(random_case("LSTM", 1, direction="forward"), "first")
    other = constant(random_case("GRU", 2, direction="forward"), "")
    for tensor in other.graph.initializer:
        tensor.name += "2"
    node = other.graph.node[0]
    node.input[:] = [name and name + "2" for name in node.input]
    node.output[:] = [name + "2" for name in node.output]
    model.graph.node.append(node)
    model.graph.initializer.extend(other.graph.initializer)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    layers = fastrnn.onnx.load(path)
    assert {name: type(layer) for name, layer in layers.items()} == {
        "first": fastrnn.LSTM,
        "Y2": fastrnn.GRU,
    }
    with pytest.raises(ValueError, match=r"model.onnx' has 2 recurrent nodes, wanted one"):
        fastrnn.load(path)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_nodes_one_behind_the_other_are_a_layers_levels(cell, tmp_path):
    layer = make(cell, 5, 7, 3, bidirectional=True)
    path = tmp_path / "model.onnx"
    fastrnn.onnx.save(layer, path)
    model = onnx.load(path)
    del model.metadata_props[:]  # as of another program
    onnx.save(model, path)
    again = fastrnn.load(path)
    assert repr(again) == repr(layer)
    np.testing.assert_array_equal(
        again.parameters["weight_hh_l2_reverse"], layer.parameters["weight_hh_l2_reverse"]
    )
    node = next(node for node in model.graph.node if node.op_type == "Reshape")
    node.op_type = "Expand"
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"3 recurrent nodes, wanted one, or the levels of one"):
        fastrnn.load(path)


def test_weights_in_a_file_beside(tmp_path):
    model = constant(random_case("LSTM", 1, direction="forward"))
    path = tmp_path / "model.onnx"
    wanted = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    onnx.save(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    assert (tmp_path / "weights.bin").stat().st_size >= sum(array.nbytes for array in wanted)
    layer = fastrnn.load(path)
    np.testing.assert_array_equal(
        np.sort(layer.parameters["weight_hh_l0"], None), np.sort(wanted[1], None)
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises((OSError, ValueError), match=r"weights\.bin"):
        fastrnn.load(path)


def lstm(direction="forward", **attributes):
    case = random_case("LSTM", 3, direction=direction)
    case.attributes |= attributes
    return case


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (lstm(clip=3.0), "LSTM node 'one': attribute 'clip' is 3.0, which no layer has"),
        (lstm("reverse"), "LSTM node 'one': attribute 'direction' is 'reverse', which no layer"),
        (lstm(input_forget=1), "LSTM node 'one': attribute 'input_forget' is 1, which no layer"),
        (
            lstm(activations=["Sigmoid", "Tanh", "Relu"]),
            "attribute 'activations' is .*, which no layer has",
        ),
        (lstm(magic=1), "LSTM node 'one': attribute 'magic' is not supported"),
    ],
)
def test_what_no_layer_can_be_is_named(case, message, tmp_path):
    onnx.save(constant(case), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=rf"(?s)model\.onnx.*{message}"):
        fastrnn.onnx.load(tmp_path / "model.onnx")


def test_peepholes_become_a_layer_s(tmp_path):
    case = random_case("LSTM", 3, direction="bidirectional", peepholes=True)
    for name in ("initial_h", "initial_c", "sequence_lens"):
        case.inputs.pop(name, None)
    onnx.save(constant(case), tmp_path / "model.onnx")
    (layer,) = fastrnn.onnx.load(tmp_path / "model.onnx").values()
    assert layer.peepholes
    wanted = case.reference()[0]  # (T, D, B, H)
    y, _ = layer(case.inputs["X"])
    assert_close(y, wanted.transpose(0, 2, 1, 3).reshape(y.shape), TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("kind", "functions", "wanted"),
    [
        ("RNN", [("Affine", 0.5, 0.125)], {"activation": ("linear", 0.5, 0.125)}),
        (
            "GRU", [("HardSigmoid", 0.25, 0.5), ("Elu", 0.5, None)],
            {"recurrent_activation": ("hard_sigmoid", 0.25, 0.5), "activation": ("elu", 0.5)},
        ),
        (
            "LSTM", [("Sigmoid", None, None), ("ScaledTanh", 2.0, 0.5), ("ScaledTanh", 2.0, 0.5)],
            {"recurrent_activation": "sigmoid", "activation": ("tanh", 2.0, 0.5)},
        ),
    ],
)  # fmt: skip
def test_activations_become_a_layer_s(kind, functions, wanted, tmp_path):
    """Whose cell is that of the operator, which `test_onnx_ops.py` compares."""
    case = random_case(kind, 3, direction="forward", functions=functions)
    onnx.save(constant(case), tmp_path / "model.onnx")
    (layer,) = fastrnn.onnx.load(tmp_path / "model.onnx").values()
    assert {name: getattr(layer, name) for name in wanted} == wanted
    assert layer._cell is parse(kind, "one", case.attributes).cell(0, peepholes=False)


def shorten(model):
    model.graph.initializer[1].dims[1] -= 1


def lengthen(model):
    model.graph.initializer[0].dims[1] = 2**40


def retype(model):
    model.graph.initializer[0].data_type = TensorProto.INT64


def disconnect(model):
    model.graph.node[0].input[1] = "elsewhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorten, "'R'"),
        (lengthen, "'W' has dimensions .*, more than its values"),
        (retype, "'W' is no array of floats"),
        (disconnect, "'elsewhere' is no constant of the model"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, tmp_path):
    model = constant(random_case("LSTM", 3, direction="forward"))
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=rf"(?s)model\.onnx.*LSTM node 'one'.*{message}"):
        fastrnn.onnx.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\x07", b"no model at all"])
def test_no_model_at_all(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    for read in (fastrnn.load, fastrnn.onnx.load):
        with pytest.raises(ValueError, match=r"model\.onnx"):
            read(tmp_path / "model.onnx")


def test_a_model_without_recurrent_nodes(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])]
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    for read in (fastrnn.load, fastrnn.onnx.load):
        with pytest.raises(ValueError, match=r"model\.onnx' has no RNN, LSTM or GRU node"):
            read(tmp_path / "model.onnx")
