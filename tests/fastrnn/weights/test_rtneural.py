"""RTNeural's JSON files: its own models and their outputs, and files that do not hold together."""

import json

import numpy as np
import pytest

import fastrnn

MODELS = ["gru", "gru_1d", "gru_torch", "lstm", "lstm_1d", "lstm_torch"]
#: A stream of each takes seconds to compile: one of each cell, with all kinds of layers.
STREAMED = ["gru", "lstm_1d"]


@pytest.mark.parametrize("name", MODELS)
def test_its_models_give_its_outputs(data, name):
    """The expected outputs agree among RTNeural's own backends to 2e-7; sums of 8 units and 6
    layers at most stand between, each off by some 1e-7."""
    model = fastrnn.load(data / "rtneural" / f"{name}.json")
    x = np.loadtxt(data / "rtneural" / f"{name}_x.csv", dtype=np.float32)[:, None]
    wanted = np.loadtxt(data / "rtneural" / f"{name}_y.csv")[:, None]
    np.testing.assert_allclose(model(x[:, None])[0][:, 0], wanted, rtol=0, atol=1e-6)
    if name in STREAMED:
        stream = model.stream()
        y = np.stack([stream.step(row).copy() for row in x])
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-6)


def test_a_model_that_does_not_fit_is_refused(data):
    with pytest.raises(
        ValueError,
        match=r"bad_lstm.json.*layer 0 \(lstm\): kernel has shape \(1, 80\), wanted \(1, 64\)",
    ):
        fastrnn.load(data / "rtneural" / "bad_lstm.json")


def dense(width=1, H=2, **others):
    weights = [np.ones((width, H)).tolist(), np.zeros(H).tolist()]
    return {
        "type": "dense",
        "activation": "",
        "shape": [None, None, H],
        "weights": weights,
    } | others


def keras(*layers, in_shape=(None, None, 1)):
    return {"in_shape": list(in_shape), "layers": list(layers)}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_dense_layers_with_their_activations(tmp_path):
    file = write(tmp_path / "model.json", keras(dense(1, 2, activation="tanh"), dense(2, 1)))
    model = fastrnn.load(file)
    x = np.linspace(-2, 2, 7, dtype=np.float32)[:, None]
    np.testing.assert_allclose(model(x)[0], 2 * np.tanh(x), rtol=1e-6)


def test_a_gru_with_one_row_of_biases_resets_before_the_product(tmp_path):
    random = np.random.default_rng(0)
    weights = [random.standard_normal(shape).tolist() for shape in ((1, 6), (2, 6), (6,))]
    gru = {"type": "gru", "activation": "tanh", "shape": [None, None, 2], "weights": weights}
    (layer,) = fastrnn.load(write(tmp_path / "model.json", keras(gru))).modules
    assert not layer.reset_after
    kernel = np.array(weights[0], np.float32).T
    np.testing.assert_array_equal(layer.parameters["weight_ih_l0"], kernel[[2, 3, 0, 1, 4, 5]])


def test_a_state_dict_of_torch(tmp_path):
    layer, last = fastrnn.RNN(3, 4, num_layers=2, seed=0), fastrnn.Linear(4, 2, seed=0)
    values = {f"rnn.{name}": value.tolist() for name, value in layer.parameters.items()}
    values |= {f"out.{name}": value.tolist() for name, value in last.parameters.items()}
    model = fastrnn.load(write(tmp_path / "model.json", values))
    x = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    np.testing.assert_array_equal(model(x)[0], last(layer(x)[0]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no JSON"),
        ('{"in_shape": [1], "layers": [', "is no JSON"),
        ("[1, 2]", "holds a list, wanted an object"),
        ({}, "holds neither layers nor a state dict"),
        (keras(), "'layers' is no list of layers"),
        ({"layers": [dense()]}, "the input has shape None, wanted a list that ends in a width"),
        (keras(dense(), in_shape=[None, 0]), "the input has shape"),
        (keras({"type": "conv1d"}), "layer 0 has the unknown type 'conv1d', wanted dense"),
        (keras(7), "layer 0 is a int, wanted an object"),
        (
            keras(dense(activation="softmax")),
            "has the unknown activation 'softmax'",
        ),
        (
            keras(dense(weights=[1])),
            "has for weights 1 of them, wanted a list of 2",
        ),
        (keras(dense(weights=None)), "has for weights None"),
        (keras(dense(activation=["tanh"])), "has the unknown activation"),
        (keras(dense(weights=[[[None, 1.0]], [0, 0]])), "kernel is no array of numbers"),
        (keras(dense(weights=[[["x"]], [0]])), "kernel is no array of numbers"),
        (keras(dense(2, 2)), r"kernel has shape \(2, 2\), wanted \(1, 2\)"),
        (keras(dense(), dense()), r"layer 1 \(dense\): kernel has shape \(1, 2\), wanted \(2, 2\)"),
        (keras(dense(shape=[None, "2"])), "wanted a list that ends in a width"),
        ({"a.weight": [[1.0]], "b.weight": [[1.0, 2.0]]}, "its modules a, b do not fit"),
        ({"a.kernel": [[1.0]]}, "a is of an unknown type: it has kernel"),
        ({"a.weight": [1.0]}, r"a.weight has shape \(1,\), wanted that of a linear layer"),
        ({"a.weight": [[1.0], [1.0, 2.0]]}, "a.weight is no array of numbers"),
        (
            {"a.weight_ih_l0": [[1.0]] * 5, "a.weight_hh_l0": [[1.0]] * 5},
            "are those of no RNN",
        ),
        (
            {"a.weight_ih_l0": [[1.0]], "a.weight_hh_l0": [[1.0]], "a.bias_ih_l0": [1.0]},
            "state_dict misses bias_hh_l0",
        ),
    ],
)
def test_files_that_do_not_hold_together(tmp_path, content, message):
    file = write(tmp_path / "model.json", content)
    with pytest.raises(ValueError, match=f"(?s)model.json.*{message}"):
        fastrnn.load(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / "none.json")
