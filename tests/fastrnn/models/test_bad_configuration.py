"""Bad configurations and weights: refused with the name, what came and what was wanted."""

import re

import numpy as np
import pytest

import fastrnn
from cases import CELLS, make, make_cell
from fastrnn import device

LAYERS = [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU]
CELL_CLASSES = [fastrnn.RNNCell, fastrnn.LSTMCell, fastrnn.GRUCell]


@pytest.mark.parametrize("kind", [*LAYERS, *CELL_CLASSES])
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((5, 0), ValueError, r"hidden_size.*\b0\b"),
        ((5, -3), ValueError, r"hidden_size.*-3\b"),
        ((-5, 3), ValueError, r"input_size.*-5\b"),
        ((5, 3.0), TypeError, r"hidden_size.*(float|3\.0)"),
        ((5.5, 3), TypeError, r"input_size.*(float|5\.5)"),
        ((5, "3"), TypeError, r"hidden_size.*(str|'3')"),
        ((None, 3), TypeError, r"input_size.*None"),
    ],
)
def test_sizes(kind, arguments, error, match):
    with pytest.raises(error, match=match):
        kind(*arguments)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_layers": 0}, ValueError, r"num_layers.*\b0\b"),
        ({"num_layers": -2}, ValueError, r"num_layers.*-2\b"),
        ({"num_layers": 1.5}, TypeError, r"num_layers.*(float|1\.5)"),
        ({"dropout": -0.1}, ValueError, r"dropout.*-0\.1"),
        ({"dropout": 1.5}, ValueError, r"dropout.*1\.5"),
        ({"dropout": float("nan")}, ValueError, r"dropout.*nan"),
        ({"dropout": "half"}, TypeError, r"dropout.*(str|half)"),
    ],
)
def test_layer_options(kind, options, error, match):
    with pytest.raises(error, match=match):
        kind(5, 7, **{"num_layers": 2} | options)


@pytest.mark.parametrize("kind", [*LAYERS, *CELL_CLASSES])
@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", "no such dtype", ">f4"])
def test_dtype(kind, dtype):
    with pytest.raises((TypeError, ValueError), match=rf"dtype.*{re.escape(dtype)}.*float32"):
        kind(5, 7, dtype=dtype)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_float16_is_the_gpus_alone(device):
    with pytest.raises(ValueError, match=rf"dtype is 'float16', .*GPU's.* on device '{device}'"):
        fastrnn.GRU(5, 7, dtype="float16", device=device)
    with pytest.raises(ValueError, match="dtype is 'float16', a linear layer takes 'float32'"):
        fastrnn.Linear(5, 7, dtype="float16", device=device)
    with pytest.raises(ValueError, match=r"dtypes is 'float16', wanted one of 'float32'"):
        fastrnn.warmup(["rnn"], ["float32", "float16"])


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(device, "_driver", lambda: device.Driver(reason="no such driver"))


@pytest.mark.parametrize("kind", [*LAYERS, *CELL_CLASSES])
def test_device(kind):
    with pytest.raises(ValueError, match=r"device.*tpu.*cpu"):
        kind(5, 7, device="tpu")


@pytest.mark.parametrize("kind", [*LAYERS, *CELL_CLASSES])
def test_a_gpu_that_is_not_there_is_said_with_the_reason(kind, no_gpu):
    with pytest.raises(RuntimeError, match=r"device 'cuda' cannot be used: no such driver"):
        kind(5, 7, device="cuda")


@pytest.mark.parametrize("build", [make, make_cell])
def test_moving_a_layer(build, no_gpu):
    layer = build("LSTM", 5, 7)
    x = np.ones((3, 5), np.float32)
    wanted = layer(x)[0]
    with pytest.raises(RuntimeError, match=r"(?i)cuda"):
        layer.to("cuda")
    with pytest.raises(ValueError, match=r"device.*tpu"):
        layer.to("tpu")
    assert np.array_equal(layer(x)[0], wanted)
    assert np.array_equal(layer.to("cpu")(x)[0], wanted)


@pytest.mark.parametrize("proj_size", [-1, 7, 8])
def test_proj_size(proj_size):
    """As in torch: smaller than hidden_size; 0 means none."""
    with pytest.raises(ValueError, match=rf"proj_size.*{proj_size}\b"):
        fastrnn.LSTM(5, 7, proj_size=proj_size)


def test_nonlinearity():
    with pytest.raises(ValueError, match=r"nonlinearity.*sigmoid.*tanh.*relu"):
        fastrnn.RNN(5, 7, nonlinearity="sigmoid")
    with pytest.raises(ValueError, match=r"nonlinearity.*sigmoid.*tanh.*relu"):
        fastrnn.RNNCell(5, 7, nonlinearity="sigmoid")


@pytest.mark.parametrize("count", [0, -1, 2.5, "two", None])
def test_number_of_threads(count):
    before = fastrnn.get_num_threads()
    with pytest.raises((TypeError, ValueError), match=rf"threads.*{count}"):
        fastrnn.set_num_threads(count)
    assert fastrnn.get_num_threads() == before


def name_of(build, name):
    return name + ("_l0" if build is make else "")


@pytest.fixture(params=[make, make_cell], ids=["layer", "cell"])
def build(request):
    return request.param


@pytest.fixture
def layer(build):
    """A GRU (5 to 7) that must be, after the test, what it was before."""
    layer = build("GRU", 5, 7)
    x = np.ones((3, 5), np.float32)
    before, y = layer.state_dict(), layer(x)[0]
    yield layer
    for name, array in layer.state_dict().items():
        assert np.array_equal(array, before[name]), name
    assert np.array_equal(layer(x)[0], y)


def test_state_dict_with_a_missing_entry(layer, build):
    other = build("GRU", 5, 7, seed=1).state_dict()
    name = name_of(build, "bias_hh")
    del other[name]
    with pytest.raises(ValueError, match=rf"miss(es|ing).*{name}"):
        layer.load_state_dict(other)


def test_state_dict_with_an_extra_entry(layer, build):
    other = build("GRU", 5, 7, seed=1).state_dict()
    other["weight_of_a_stranger"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="weight_of_a_stranger"):
        layer.load_state_dict(other)


def test_state_dict_of_another_layer(layer, build):
    with pytest.raises(ValueError, match="bias"):
        layer.load_state_dict(build("GRU", 5, 7, bias=False).state_dict())
    with pytest.raises(ValueError, match=r"weight_ih.*\b28\b.*\b21\b|weight_ih.*\b21\b.*\b28\b"):
        layer.load_state_dict(build("LSTM", 5, 7).state_dict())


@pytest.mark.parametrize("change", ["load_state_dict", "update"])
@pytest.mark.parametrize(
    ("bad", "error", "wanted"),
    [
        (np.zeros(20, np.float32), ValueError, [r"\b20\b", r"\b21\b"]),
        (np.zeros((1, 21), np.float32), ValueError, [r"\(1, 21\)", r"\(21,\)"]),
        (np.zeros(21, np.complex64), TypeError, ["complex64", "float32"]),
        (np.full(21, "a"), TypeError, ["<U1", "float32"]),
        (np.full(21, None), TypeError, ["object", "float32"]),
        (None, TypeError, ["float32"]),
    ],
)
def test_entry_that_does_not_fit(layer, build, change, bad, error, wanted):
    """It comes last, after entries that are good: not even those are written."""
    entries = build("GRU", 5, 7, seed=1).state_dict()
    name = name_of(build, "bias_hh")
    assert list(entries)[-1] == name
    entries[name] = bad
    match = "".join(f"(?=.*(?:{pattern}))" for pattern in (name, *wanted))
    with pytest.raises(error, match=match):
        getattr(layer, change)(entries)


def test_update_of_an_unknown_parameter(layer, build):
    good = name_of(build, "weight_hh")
    entries = {good: np.zeros((21, 7), np.float32), "weight_of_a_stranger": np.zeros(3)}
    with pytest.raises((ValueError, KeyError), match="weight_of_a_stranger"):
        layer.update(entries)


@pytest.mark.parametrize("change", ["load_state_dict", "update"])
@pytest.mark.parametrize("entries", [None, 3, "text", [1, 2]])
def test_weights_that_are_no_mapping(layer, change, entries):
    with pytest.raises(TypeError, match=type(entries).__name__):
        getattr(layer, change)(entries)


@pytest.mark.parametrize("cell", CELLS)
def test_input_of_cells(cell):
    one = make_cell(cell, 11, 13)
    x = np.ones((3, 11), np.float32)
    before, wanted = one.state_dict(), np.asarray(one(x))
    h = np.zeros((3, 13), np.float32)
    pair = cell == "LSTM"

    def state(part):
        return (h, part) if pair else part

    bad = [
        (np.zeros((3, 40), np.float32), None, ValueError, r"input.*\b40\b.*\b11\b"),
        (np.zeros((2, 3, 11), np.float32), None, ValueError, r"input.*(\b3\b|\(2, 3, 11\))"),
        (np.float32(3), None, ValueError, r"input"),
        (x.astype(np.float64), None, TypeError, r"input.*float64.*float32"),
        (x.astype(int), None, TypeError, r"input.*int64.*float32"),
        (None, None, TypeError, r"input"),
        (x, state(np.zeros((3, 40), np.float32)), ValueError, r"\b(state|h0|c0|h|c)\b.*\b40\b"),
        (x, state(np.zeros((9, 13), np.float32)), ValueError, r"\b(state|h0|c0|h|c)\b.*\b9\b"),
        (x, state(np.zeros(13, np.float32)), ValueError, r"\b(state|h0|c0|h|c)\b"),
        (x, state(h.astype(float)), TypeError, r"\b(state|h0|c0|h|c)\b.*float64.*float32"),
        (x, h if pair else (h, h), (TypeError, ValueError), r"\b(state|h0|c0|h|c)\b"),
        (x[0], (h, h) if pair else h, ValueError, r"\b(state|h0|c0|h|c)\b"),
    ]
    for given, initial, error, match in bad:
        for call in (one, one.forward):
            with pytest.raises(error, match=match):
                call(given, initial)
    _, tape = one.forward(x)
    with pytest.raises(ValueError, match=r"\b(dstate|dh|dc)\b.*\b40\b.*\b13\b"):
        one.backward(tape, state(np.zeros((3, 40), np.float32)))
    with pytest.raises(TypeError, match=r"\b(dstate|dh|dc)\b.*float64.*float32"):
        one.backward(tape, state(h.astype(float)))
    with pytest.raises(TypeError, match=r"\btape\b"):
        one.backward(None, state(h))
    for name, array in one.state_dict().items():
        assert np.array_equal(array, before[name])
    assert np.array_equal(np.asarray(one(x)), wanted)
