"""The operators of ONNX on fastrnn's kernels: against its text, its own cases, and onnxruntime."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_gru, op_lstm, op_rnn

import fastrnn.onnx
from cases import TOLERANCE, assert_close
from fastrnn_kernels.cpu.device import Weights
from onnx_models import GATES, random_case

#: Cells that are compiled for these tests: few, as each takes some seconds.
USUAL = {
    "rnn": {"kind": "RNN"},
    "rnn-relu": {"kind": "RNN", "functions": [("Relu", None, None)]},
    "lstm": {"kind": "LSTM"},
    "gru": {"kind": "GRU", "linear_before_reset": 1},
    "gru-reset-before": {"kind": "GRU", "linear_before_reset": 0},
}
OTHERS = {
    "rnn-affine": {
        "kind": "RNN", "clip": 0.75, "direction": "bidirectional",
        "functions": [("Affine", 0.5, 0.125), ("LeakyRelu", 0.25, None)],
    },
    "lstm-peepholes": {"kind": "LSTM", "peepholes": True},
    "lstm-clipped": {
        "kind": "LSTM", "peepholes": True, "clip": 0.5,
        "functions": [("HardSigmoid", 0.25, 0.5), ("Softsign", None, None),
                      ("Softplus", None, None)],
    },
    "lstm-coupled": {
        "kind": "LSTM", "input_forget": 1,
        "functions": [("Sigmoid", None, None), ("Elu", 1.5, None), ("ScaledTanh", 2.0, 0.5)],
    },
    "gru-clipped": {
        "kind": "GRU", "linear_before_reset": 1, "clip": 0.5,
        "functions": [("HardSigmoid", 0.25, 0.5), ("ThresholdedRelu", 0.25, None)],
    },
    "gru-reset-before-clipped": {
        "kind": "GRU", "linear_before_reset": 0, "clip": 1.0,
        "functions": [("Sigmoid", None, None), ("Elu", 0.5, None)],
    },
}  # fmt: skip
ALL = USUAL | OTHERS


def of_onnx(*args, **kwargs):
    raise AssertionError("an operator of onnx's own ran in place of fastrnn's")


@pytest.fixture(autouse=True)
def no_operators_of_onnx(monkeypatch):
    for kind in (op_rnn.CommonRNN, op_gru.CommonGRU, op_lstm.CommonLSTM):
        monkeypatch.setattr(kind, "_run", of_onnx)


def assert_outputs(found, wanted, tolerance):
    for name, array, right in zip(("Y", "Y_h", "Y_c"), found, wanted, strict=False):
        assert_close(array, right, tolerance, name)
    assert len(found) == len(wanted)


def test_the_patch_reaches_onnx():
    case = random_case("LSTM", 0)
    evaluator = ReferenceEvaluator(case.model())
    with pytest.raises(AssertionError, match="of onnx's own"):
        evaluator.run(None, case.inputs)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("name", ALL)
def test_values(name, layout):
    for seed in range(6):
        case = random_case(seed=seed, layout=layout, **ALL[name])
        found = case.fastrnn()
        assert all(array.dtype == np.float32 for array in found)
        assert_outputs(found, case.reference(), TOLERANCE["float32"])


@pytest.mark.parametrize("name", USUAL)
def test_values_in_float64(name):
    for seed in range(3):
        case = random_case(seed=seed, dtype=np.float64, **ALL[name])
        assert_outputs(case.fastrnn(), case.reference(), TOLERANCE["float64"])


@pytest.mark.parametrize("name", ALL)
def test_against_onnxruntime(name):
    """Random sizes, directions and inputs; onnxruntime has no layout 1, and float32 alone."""
    for seed in range(12):
        case = random_case(seed=seed, **ALL[name])
        assert_outputs(case.fastrnn(), case.onnxruntime(), TOLERANCE["float32"])


def test_half_precision_is_computed_in_float32():
    case = random_case(seed=3, dtype=np.float16, **ALL["lstm"])
    found = fastrnn.onnx.OPS[1].eval(*_positional(case), n_outputs=3, **case.attributes)
    for array, wanted in zip(found, case.reference(), strict=True):
        assert array.dtype == np.float16
        assert_close(array.astype(np.float64), wanted, 1e-3)  # float16 rounds at 5e-4


def _positional(case):
    return [case.inputs.get(name) for name in ("X", "W", "R", "B", "sequence_lens")] + [
        case.inputs.get(name) for name in ("initial_h", "initial_c")
    ]


def test_a_row_of_length_zero_keeps_its_state():
    """The text does not say; onnxruntime gives zeros, the RNN there what lay in memory."""
    case = random_case(seed=5, **ALL["gru"])
    B, T = case.inputs["X"].shape[1], len(case.inputs["X"])
    D, _, H = case.inputs["R"].shape
    case.inputs["sequence_lens"] = np.array([0] + [T] * (B - 1), np.int32)
    case.inputs["initial_h"] = np.full((D, B, H), 0.5, np.float32)
    y, h = case.fastrnn()
    assert not y[:, :, 0].any()
    assert (h[:, 0] == 0.5).all()
    assert_outputs((y, h), case.reference(), TOLERANCE["float32"])


def node_cases():
    """Those that the onnx package carries for these operators: (name, node, inputs, outputs)."""
    import warnings

    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import gru, lstm, rnn

    def expect(node, inputs, outputs, name):
        found.append((name, node, inputs, outputs))

    for module, kind in ((rnn, rnn.RNN), (lstm, lstm.LSTM), (gru, gru.GRU)):
        kept, module.expect = module.expect, expect
        try:
            # A library may raise the flag of lanes that it does not use (seen in a product).
            with np.errstate(invalid="ignore"):
                for name in sorted(vars(kind)):
                    if name.startswith("export"):
                        getattr(kind, name)()
        finally:
            module.expect = kept
    return found


NODE_CASES = node_cases()


def test_there_are_18_node_cases():
    assert len(NODE_CASES) == 18


@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case[0])
def test_node_case(case):
    _, node, inputs, outputs = case
    names = [name for name in node.input if name]
    given = dict(zip(names, inputs, strict=True))
    kinds = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in given.items()}
    graph = helper.make_graph(
        [node],
        "case",
        [helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in given.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in node.output if n],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    found = ReferenceEvaluator(model, new_ops=fastrnn.onnx.OPS).run(None, given)
    for array, wanted in zip(found, outputs, strict=True):
        # onnx's own runner compares these to 1e-3; both sides here are float32.
        assert_close(array, wanted.astype(np.float32), TOLERANCE["float32"])


@pytest.mark.parametrize("kind", GATES)
def test_weights_are_packed_once_and_follow_their_values(kind, monkeypatch):
    case = random_case(kind, 1, direction="forward")
    evaluator = ReferenceEvaluator(case.model(), new_ops=fastrnn.onnx.OPS)
    packed = []
    pack = Weights._pack_forward
    monkeypatch.setattr(Weights, "_pack_forward", lambda self: packed.append(1) or pack(self))
    before = evaluator.run(None, case.inputs)[0]
    again = evaluator.run(None, {name: a.copy() for name, a in case.inputs.items()})[0]
    assert len(packed) == 1
    np.testing.assert_array_equal(before, again)
    case.inputs["R"] *= np.float32(0.5)  # in place
    found = evaluator.run(None, case.inputs)
    assert len(packed) == 2
    assert_outputs(found, case.reference(), TOLERANCE["float32"])
    case.inputs["W"][0, 0, 0] = 0.0
    evaluator.run(None, case.inputs)
    case.inputs["W"][0, 0, 0] = -0.0  # which are other bits
    evaluator.run(None, case.inputs)
    assert len(packed) == 4
    case.inputs["W"][0, 0, 0] = np.nan  # which is itself
    evaluator.run(None, case.inputs)
    evaluator.run(None, case.inputs)
    assert len(packed) == 5


def one(kind="LSTM", **attributes):
    case = random_case(kind, 2, direction="forward")
    case.attributes |= attributes
    return case


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (one(activations=["Tanh"]), "LSTM node 'one': attribute 'activations' has 1 .* wanted 3"),
        (one(activations=["Tanh", "Tanh", "Swish"]), "'activations' names the unknown 'Swish'"),
        (one(activations=["Affine", "Tanh", "Tanh"]), "'activation_alpha' has no value for 'aff"),
        (one(clip=0.0), "attribute 'clip' is 0.0, wanted more than 0"),
        (one(clip=float("nan")), "attribute 'clip' is nan, wanted more than 0"),
        (one(clip="a lot"), "attribute 'clip' is 'a lot', wanted a number"),
        (one(direction="sideways"), "attribute 'direction' is 'sideways', wanted 'forward'"),
        (one(direction="bidirectional"), r"input 'R' has shape .*, wanted \(2, 4 H, H\)"),
        (one(layout=2), "attribute 'layout' is 2, wanted 0 or 1"),
        (one(input_forget=3), "attribute 'input_forget' is 3, wanted 0 or 1"),
        (one(hidden_size=0), "attribute 'hidden_size' is 0, wanted at least 1"),
        (one(hidden_size=77), r"input 'R' has shape .*, wanted \(1, 308, 77\)"),
        (one(output_sequence=1), "attribute 'output_sequence' is not supported; wanted activation"),
        (one("GRU", input_forget=1), "GRU node 'one': attribute 'input_forget' is not supported"),
    ],
)
def test_attributes_that_are_refused(case, message):
    with pytest.raises(ValueError, match=message):
        case.fastrnn()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("X", lambda a: a[..., :-1], r"'X'|'W'"),
        ("X", lambda a: a[0], r"input 'X' has shape .*, wanted \(T, B, "),
        ("X", lambda a: a.astype(np.int32), "input 'X' has dtype int32, wanted floats"),
        ("W", lambda a: a[:, :-1], r"input 'W' has shape .*, wanted \(1, \d+, I\)"),
        ("B", lambda a: a[:, 1:], r"input 'B' has shape .*, wanted \(1, \d+\)"),
        ("initial_h", lambda a: a[:, :, :-1], r"input 'initial_h' has shape .*, wanted \(1, "),
        ("initial_c", lambda a: a[0], r"input 'initial_c' has shape .*, wanted \(1, "),
        ("P", lambda a: a[:, 1:], r"input 'P' has shape .*, wanted \(1, \d+\)"),
        ("sequence_lens", lambda a: a[:-1], r"input 'sequence_lens' has shape"),
        ("sequence_lens", lambda a: a + 99, r"holds \d+, wanted integers from 0 to T = "),
        ("sequence_lens", lambda a: a - 99, r"holds -\d+, wanted integers from 0 to T = "),
    ],
)
def test_inputs_that_do_not_fit(name, change, message):
    case = random_case("LSTM", 4, direction="forward", peepholes=True)
    T, B, I = case.inputs["X"].shape
    D, G, H = case.inputs["R"].shape
    case.inputs |= {
        "B": np.zeros((D, 2 * G), np.float32),
        "sequence_lens": np.full(B, T, np.int32),
        "initial_h": np.zeros((D, B, H), np.float32),
        "initial_c": np.zeros((D, B, H), np.float32),
    }
    assert min(I, B, H) > 1
    case.inputs[name] = change(case.inputs[name])
    given = [case.inputs[n] for n in ("X", "W", "R", "B", "sequence_lens")]
    given += [case.inputs[n] for n in ("initial_h", "initial_c", "P")]
    with pytest.raises(ValueError, match=message):
        fastrnn.onnx.OPS[1].eval(*given, n_outputs=3, **case.attributes)
