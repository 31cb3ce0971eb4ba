"""Keras files of the forms that published models have, made alike: small and random.

Most are the older HDF5: whole models (`m.save("old.h5")`), and weights alone as Keras 2 wrote them.
What Keras gives is right.
"""

import json

import h5py
import numpy as np
import pytest

import fastrnn
from cases import TOLERANCE, assert_close
from keras_on_torch import QUIET, keras

pytestmark = QUIET
layers = keras.layers
I = 3


def drawn(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([0.3 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def chain(*made):
    return drawn(keras.Sequential([keras.Input((None, I)), *made]))


def rows(layer, **options):
    return layer(5, return_sequences=True, **options)


CHAINS = {
    "lstm": lambda: [rows(layers.LSTM)],
    "lstm-no-bias": lambda: [rows(layers.LSTM, use_bias=False)],
    "gru": lambda: [rows(layers.GRU)],
    "gru-before": lambda: [rows(layers.GRU, reset_after=False)],
    "rnn-relu": lambda: [rows(layers.SimpleRNN, activation="relu")],
    "stack": lambda: [
        rows(layers.LSTM, name="first"), layers.Dropout(0.5), rows(layers.GRU),
        layers.TimeDistributed(layers.Dense(4, activation="relu")), layers.Dense(1, name="out"),
    ],
    "both": lambda: [layers.Bidirectional(rows(layers.LSTM)), layers.Dense(2)],
}  # fmt: skip


def values(seed=1):
    return np.random.default_rng(seed).standard_normal((2, 6, I)).astype(np.float32)


def right(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def check(found, model, stream=True):
    """Values of a whole call and, of one direction, of a stream."""
    x = values()
    wanted = right(model, x)
    assert_close(found(x)[0], wanted, TOLERANCE["float32"])
    if stream:
        running = found.stream()
        steps = np.stack([running.step(row).copy() for row in x[0]])
        assert_close(steps, wanted[0], TOLERANCE["float32"])


@pytest.mark.smoke
@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".model"])
@pytest.mark.parametrize("name", CHAINS)
def test_whole_models_in_older_files(name, suffix, tmp_path):
    model = chain(*CHAINS[name]())
    model.save(tmp_path / "old.h5")
    (tmp_path / "old.h5").rename(tmp_path / f"old{suffix}")
    check(fastrnn.load(tmp_path / f"old{suffix}"), model, stream=name != "both")


def test_a_functional_model_in_an_older_file(tmp_path):
    x = keras.Input((None, I))
    model = drawn(keras.Model(x, layers.Dense(2)(rows(layers.LSTM)(x))))
    model.save(tmp_path / "old.h5")
    check(fastrnn.load(tmp_path / "old.h5"), model)


def test_a_trained_model_s_optimizer_is_left_out(tmp_path):
    model = chain(rows(layers.LSTM), layers.Dense(1))
    model.compile("adam", "mse")
    model.fit(values(), np.zeros((2, 6, 1)), verbose=0)
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5") as file:
        assert "optimizer_weights" in file
    check(fastrnn.load(tmp_path / "old.h5"), model)


def older(path, config=None, *, time_major=None, list_of_layers=False):
    """Make of what Keras 3 wrote what Keras 2 did: names with :0, nothing that is new."""
    with h5py.File(path, "r+") as file:
        root = file["model_weights"]
        found = {}
        for name in root:
            group, arrays = root[name], {}
            group.visititems(
                lambda n, o, a=arrays: a.update({n: o[()]} if hasattr(o, "shape") else {})
            )
            order = [str(n) for n in group.attrs["weight_names"]]
            found[name] = {n: arrays[n] for n in order}
        names = [str(n) for n in root.attrs["layer_names"]]
        model = json.loads(file.attrs["model_config"])
    for layer in model["config"]["layers"]:
        own = layer["config"]
        for key in ("registered_name", "module", "build_config"):
            layer.pop(key, None)
        own["dtype"] = "float32"
        if layer["class_name"] == "InputLayer":
            own["batch_input_shape"] = own.pop("batch_shape", [None, None, I])
        for one in (own, *([own["layer"]["config"]] if "layer" in own else [])):
            if time_major is not None and "units" in one and "recurrent_activation" in one:
                one["time_major"] = time_major
            one.pop("zero_output_for_mask", None)
        if layer.get("inbound_nodes"):
            (call,) = layer["inbound_nodes"]
            history = call["args"][0]["config"]["keras_history"]
            layer["inbound_nodes"] = [[[*history, {}]]]
    whole = model["config"]
    if list_of_layers:
        model["config"] = whole["layers"]
    with h5py.File(path, "w") as file:
        if config is None:
            file.attrs["model_config"] = np.bytes_(json.dumps(model))
            file.attrs["keras_version"] = b"2.9.0"
            root = file.create_group("model_weights")
        else:
            root = file
        root.attrs["layer_names"] = np.array([n.encode() for n in names])
        root.attrs["backend"] = b"tensorflow"
        for name in names:
            group = root.create_group(name)
            told = []
            for key, array in found[name].items():
                key = key.removeprefix("sequential/") + ":0"
                told.append(key.encode())
                group[key] = array
            group.attrs["weight_names"] = np.array(told) if told else np.array([], "S1")


@pytest.mark.parametrize("time_major", [None, False])
@pytest.mark.parametrize("name", CHAINS)
def test_whole_models_of_keras_2(name, time_major, tmp_path):
    model = chain(*CHAINS[name]())
    model.save(tmp_path / "old.h5")
    older(tmp_path / "old.h5", time_major=time_major)
    check(fastrnn.load(tmp_path / "old.h5"), model, stream=name != "both")


def test_a_functional_model_of_keras_2(tmp_path):
    x = keras.Input((None, I))
    model = drawn(keras.Model(x, layers.Dense(2)(rows(layers.LSTM)(x))))
    model.save(tmp_path / "old.h5")
    older(tmp_path / "old.h5")
    check(fastrnn.load(tmp_path / "old.h5"), model)


def test_a_model_of_keras_2_2_is_a_list_of_layers(tmp_path):
    model = chain(rows(layers.LSTM), layers.Dense(1))
    model.save(tmp_path / "old.h5")
    older(tmp_path / "old.h5", list_of_layers=True)
    check(fastrnn.load(tmp_path / "old.h5"), model)


def test_layers_that_take_the_time_first(tmp_path):
    model = chain(rows(layers.LSTM), rows(layers.GRU))
    model.save(tmp_path / "old.h5")
    older(tmp_path / "old.h5", time_major=True)
    found = fastrnn.load(tmp_path / "old.h5")
    assert not any(module.batch_first for module in found.modules)
    x = values()
    wanted = right(model, x)
    assert_close(found(x.swapaxes(0, 1).copy())[0], wanted.swapaxes(0, 1), TOLERANCE["float32"])


@pytest.mark.parametrize("name", [name for name in CHAINS if name != "rnn-relu"])
def test_weights_alone_of_keras_2(name, tmp_path):
    """Which say the order of layers, and no activations."""
    model = chain(*CHAINS[name]())
    if name == "stack":
        model = chain(rows(layers.LSTM), rows(layers.GRU), layers.Dense(2), layers.Dense(1))
    model.save(tmp_path / "old.h5")
    older(tmp_path / "old.h5", config="none")
    check(fastrnn.load(tmp_path / "old.h5"), model, stream=name != "both")


def published():
    """An embedding in front, a layer by name, batch normalisation: as published models have it."""
    given = keras.Input((None,))
    y = layers.Embedding(7, I, name="letters")(given)
    y = rows(layers.LSTM, name="enc")(y)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.Bidirectional(rows(layers.GRU), name="both")(y)
    return drawn(keras.Model(given, layers.Dense(2, name="head")(y)))


@pytest.mark.parametrize("form", ["e.keras", "e.h5", "e.weights.h5", "old.h5", "none.h5"])
def test_one_layer_by_its_name(form, tmp_path):
    model, path = published(), tmp_path / form
    if form == "e.weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    if form in ("old.h5", "none.h5"):
        older(path, config="none" if form == "none.h5" else None)
    x = values()
    wanted = right(model.get_layer("enc"), x)
    found = fastrnn.load(path, prefix="enc")
    assert_close(found(x)[0], wanted, TOLERANCE["float32"])
    stream = found.stream()
    steps = np.stack([stream.step(row).copy() for row in x[0]])
    assert_close(steps, wanted[0], TOLERANCE["float32"])
    again = fastrnn.load(path, prefix="both")
    assert_close(again(wanted)[0], right(model.get_layer("both"), wanted), TOLERANCE["float32"])
    assert fastrnn.load(path, prefix="head").out_features == 2
    name = "lstm" if form == "e.weights.h5" else "enc"
    with pytest.raises(ValueError, match=rf"prefix takes .*'{name}', LSTM 3 → 5, batch first"):
        fastrnn.load(path)
    with pytest.raises(ValueError, match="it has no layer 'decoder'; prefix takes"):
        fastrnn.load(path, prefix="decoder")
    name = "embedding" if form == "e.weights.h5" else "letters"
    with pytest.raises(ValueError, match=rf"what else there is: .*'{name}'.*\(7, 3\)"):
        fastrnn.load(path)
    with pytest.raises(ValueError, match="nothing that fastrnn has"):
        fastrnn.load(path, prefix=name)


@pytest.mark.parametrize("form", ["n.keras", "n.h5", "n.weights.h5"])
def test_a_layer_of_a_model_inside_of_a_model(form, tmp_path):
    inner = keras.Sequential([keras.Input((None, I)), rows(layers.LSTM, name="deep")], name="sub")
    model, path = chain(inner, layers.Dense(2, name="out")), tmp_path / form
    if form == "n.weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    wanted = right(inner, values())
    name = "sequential.lstm" if form == "n.weights.h5" else "sub.deep"
    for prefix in (name, name.replace(".", "/"), "deep"):
        found = fastrnn.load(path, prefix=prefix)
        assert_close(found(values())[0], wanted, TOLERANCE["float32"])
    with pytest.raises(ValueError, match=rf"prefix takes .*'{name}', LSTM"):
        fastrnn.load(path)


def test_a_gru_as_rnnoise_has_it_is_refused_by_name(tmp_path):
    model = chain(rows(layers.GRU, activation="relu", reset_after=False, name="noise_gru"))
    for name in ("a.keras", "a.h5"):
        model.save(tmp_path / name)
        with pytest.raises(ValueError, match=r"layer 1 \(GRU\) has activation 'relu', wanted tanh"):
            fastrnn.load(tmp_path / name)


def test_layers_of_cudnn_are_refused_by_name(tmp_path):
    chain(rows(layers.LSTM)).save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        text = file.attrs["model_config"].replace(
            '"class_name": "LSTM"', '"class_name": "CuDNNLSTM"'
        )
        file.attrs["model_config"] = text
    with pytest.raises(ValueError, match=r"layer 1 \(CuDNNLSTM\) is nothing that fastrnn has"):
        fastrnn.load(tmp_path / "old.h5")


def test_a_weight_that_no_layer_takes_is_named(tmp_path):
    model = chain(rows(layers.LSTM), layers.Dense(1))
    model.save(tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file["model_weights/extra/kernel"] = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match=r"weights in .*extra"):
        fastrnn.load(tmp_path / "old.h5")


def test_names_that_may_each_be_the_whole_file(tmp_path):
    """Texts of any length lie elsewhere in the file, and several may be one and the same."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.create("layer_names", ["x"] * 200, dtype=h5py.string_dtype())
        file["x/kernel"] = np.ones(2**19, np.float32)
    with pytest.raises(ValueError, match=r"a\.h5.*layer_names would have"):
        fastrnn.load(tmp_path / "a.h5")


def test_many_layers_of_a_large_model(tmp_path):
    """More names than the file above, which its configuration tells, too."""
    model = chain(*[layers.Dense(40) for _ in range(120)])
    model.save(tmp_path / "old.h5")
    found = fastrnn.load(tmp_path / "old.h5")
    assert_close(found(values())[0], right(model, values()), TOLERANCE["float32"])
