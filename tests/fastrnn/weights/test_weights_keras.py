"""Keras's files: what Keras wrote gives Keras's numbers, and Keras loads what fastrnn wrote."""

import json
import zipfile

import numpy as np
import pytest

import fastrnn
from cases import TOLERANCE, assert_close, make
from fastrnn import weights
from keras_on_torch import QUIET, keras

pytestmark = QUIET
layers = keras.layers


def sequences(**options):
    return {"return_sequences": True, **options}


MODELS = {
    "lstm": lambda: [layers.LSTM(5, **sequences())],
    "lstm-no-bias": lambda: [layers.LSTM(5, **sequences(use_bias=False, dropout=0.3))],
    "gru": lambda: [layers.GRU(5, **sequences())],
    "gru-before": lambda: [layers.GRU(5, **sequences(reset_after=False))],
    "gru-no-bias": lambda: [layers.GRU(5, **sequences(use_bias=False, reset_after=False))],
    "rnn-relu": lambda: [layers.SimpleRNN(5, **sequences(activation="relu"))],
    "stack": lambda: [
        layers.LSTM(5, **sequences()), layers.Dropout(0.5), layers.LSTM(4, **sequences()),
        layers.TimeDistributed(layers.Dense(3, activation="relu")),
        layers.Dense(1, activation="sigmoid", use_bias=False),
    ],
    "bidirectional": lambda: [
        layers.Bidirectional(layers.GRU(5, **sequences())),
        layers.Bidirectional(layers.GRU(4, **sequences())),
    ],
}  # fmt: skip


def random_model(name):
    model = keras.Sequential([keras.Input((None, 3)), *MODELS[name]()])
    rng = np.random.default_rng(0)
    model.set_weights([0.3 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def answers(model, x):
    return model(x)[0] if not isinstance(model, fastrnn.Linear) else model(x)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_keras(name, tmp_path):
    model = random_model(name)
    x = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32)
    wanted = keras.ops.convert_to_numpy(model(x, training=False))
    model.save(tmp_path / "model.keras")
    ours = fastrnn.load(tmp_path / "model.keras")
    assert_close(answers(ours, x), wanted, TOLERANCE["float32"])
    weights.save(ours, tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert_close(keras.ops.convert_to_numpy(again(x)), wanted, TOLERANCE["float32"])


@pytest.mark.parametrize("name", ["lstm", "gru", "gru-before", "bidirectional"])
def test_weights_alone(name, tmp_path):
    model = random_model(name)
    x = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32)
    wanted = keras.ops.convert_to_numpy(model(x, training=False))
    model.save_weights(tmp_path / "model.weights.h5")
    ours = fastrnn.load(tmp_path / "model.weights.h5")
    assert_close(answers(ours, x), wanted, TOLERANCE["float32"])
    weights.save(ours, tmp_path / "again.weights.h5")
    other = keras.Sequential([keras.Input((None, 3)), *MODELS[name]()])
    other.load_weights(tmp_path / "again.weights.h5")
    assert_close(keras.ops.convert_to_numpy(other(x)), wanted, TOLERANCE["float32"])


def test_a_functional_model(tmp_path):
    x = keras.Input((None, 3))
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(4, **sequences())(x)))
    model.save(tmp_path / "model.keras")
    given = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32)
    ours = fastrnn.load(tmp_path / "model.keras")
    wanted = keras.ops.convert_to_numpy(model(given))
    assert_close(answers(ours, given), wanted, TOLERANCE["float32"])


def test_a_functional_model_with_states(tmp_path):
    x = keras.Input((None, 3))
    y = layers.Dropout(0.5)(layers.GRU(4, **sequences())(x))
    model = keras.Model(x, layers.LSTM(4, **sequences(return_state=True))(y))
    model.save(tmp_path / "model.keras")
    given = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32)
    found, (_, (h, c)) = fastrnn.load(tmp_path / "model.keras")(given)
    for array, wanted in zip((found, h[0], c[0]), model(given), strict=True):
        assert_close(array, keras.ops.convert_to_numpy(wanted), TOLERANCE["float32"])


def lstm(name, **options):
    return layers.LSTM(3, name=name, **sequences(**options))


def two_that_read_the_input(x):
    return lstm("a")(x), lstm("b")(x)


def an_output_before_the_last(x):
    y = lstm("a")(x)
    return y, lstm("b")(y)


def a_shared_layer(x):
    shared = lstm("a")
    return shared(shared(x))


def an_encoder_and_a_decoder(x):
    y, *states = lstm("a", return_state=True)(x)
    return lstm("b")(y, initial_state=states)


def a_state_as_input(x):
    return layers.Dense(2, name="b")(lstm("a", return_state=True)(x)[1])


def a_sum(x):
    return layers.Add(name="b")([lstm("a")(x), x])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (two_that_read_the_input, r"layer 2 \(LSTM\) does not read layer 1 once"),
        (an_output_before_the_last, "its outputs are .*, wanted those of 'b'"),
        (a_shared_layer, r"layer 1 \(LSTM\) does not read layer 0 once, and nothing else"),
        (an_encoder_and_a_decoder, r"layer 2 \(LSTM\) does not read layer 1 once, and nothing"),
        (a_state_as_input, r"layer 2 \(Dense\) does not read layer 1 once"),
        (a_sum, r"layer 2 \(Add\) does not read layer 1 once"),
    ],
)
def test_a_functional_model_that_is_no_chain(made, message, tmp_path):
    x = keras.Input((None, 3))
    keras.Model(x, made(x)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=rf"model\.keras.*{message}"):
        fastrnn.load(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [
        (layers.LSTM(4), {"activation": "relu"}, "has activation 'relu', wanted tanh"),
        (layers.GRU(4), {"recurrent_activation": "tanh"}, "has recurrent_activation 'tanh'"),
        (layers.GRU(4), {"reset_after": False}, "differs from the forward one in more than"),
        (layers.SimpleRNN(4), {"activation": "relu"}, "differs from the forward one in more"),
    ],
)
def test_a_backward_layer_of_its_own(forward, backward, message, tmp_path):
    other = type(forward)(4, go_backwards=True, **backward)
    both = layers.Bidirectional(forward, backward_layer=other)
    model = keras.Sequential([keras.Input((None, 3)), both])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=rf"layer 1 \(Bidirectional\): backward_layer {message}"):
        fastrnn.load(tmp_path / "model.keras")
    if "reset_after" in backward:  # which the weights alone tell, too
        model.save_weights(tmp_path / "model.weights.h5")
        with pytest.raises(ValueError, match="its biases are those of several kinds of GRU"):
            fastrnn.load(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "GRU-reset-before", "RNN-tanh"])
def test_layers_of_ours(cell, tmp_path):
    layer = make(cell, 3, 5, 2, bidirectional=cell == "LSTM", batch_first=True)
    weights.save(layer, tmp_path / "ours.keras")
    model = keras.saving.load_model(tmp_path / "ours.keras")
    x = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32)
    found = keras.ops.convert_to_numpy(model(x, training=False))
    assert_close(found, layer(x)[0], TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: [layers.LSTM(4, activation="relu")], r"layer 1 \(LSTM\) has activation 'relu'"),
        (lambda: [layers.GRU(4, go_backwards=True)], r"layer 1 \(GRU\) has go_backwards"),
        (lambda: [layers.Conv1D(4, 3)], r"layer 1 \(Conv1D\) is nothing that fastrnn has"),
        (
            lambda: [layers.Bidirectional(layers.LSTM(4), merge_mode="sum")],
            r"layer 1 \(Bidirectional\) has merge_mode 'sum', wanted 'concat'",
        ),
        (
            lambda: [layers.Bidirectional(layers.LSTM(4)), layers.Dense(1)],
            "gives its last step alone to the layer behind it",
        ),
    ],
)
def test_layers_that_fastrnn_has_not(made, message, tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), *made()])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=rf"model\.keras.*{message}"):
        fastrnn.load(tmp_path / "model.keras")


def test_weights_that_do_not_fit_the_configuration(tmp_path):
    path = tmp_path / "model.keras"
    weights.save(make("LSTM", 3, 5), path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][1]["class_name"] = "GRU"
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"model\.keras.*it has no group /layers/gru"):
        fastrnn.load(path)
