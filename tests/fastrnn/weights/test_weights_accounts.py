"""No weight of a file is left unread without a word, and a file is what it says, not its name."""

import json
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from onnx import helper, numpy_helper

import fastrnn
from cases import make
from fastrnn import weights
from fastrnn.tools.convert import outputs
from keras_on_torch import QUIET, keras

pytestmark = QUIET
L = keras.layers
#: Layers that fastrnn has not, and the groups that their variables stand in.
UNKNOWN = {
    "conv1d": lambda: L.Conv1D(4, 3, padding="causal"),
    "batch_normalization": lambda: L.BatchNormalization(),
    "layer_normalization": lambda: L.LayerNormalization(),
    "embedding": lambda: keras.Sequential([L.Embedding(3, 1), L.Reshape((-1, 4))], name="first"),
    "depthwise_conv1d": lambda: L.DepthwiseConv1D(3, padding="same"),
    "p_re_lu": lambda: L.PReLU(shared_axes=[1]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_weights_of_layers_that_fastrnn_has_not(name, tmp_path):
    """All groups are named; before and behind the recurrent layer."""
    keras.utils.clear_session()
    model = keras.Sequential(
        [keras.Input((None, 4)), UNKNOWN[name](), L.LSTM(4, return_sequences=True),
         L.LayerNormalization(), L.Dense(1)]
    )  # fmt: skip
    model.save_weights(tmp_path / "c.weights.h5")
    with pytest.raises(ValueError, match=r"c\.weights\.h5': it has weights in ") as caught:
        fastrnn.load(tmp_path / "c.weights.h5")
    assert f"/{name}/vars" in str(caught.value)
    assert "/layers/layer_normalization" in str(caught.value)
    unread, _, listed = str(caught.value).partition("; prefix takes ")
    assert "lstm" not in unread
    assert "'lstm', LSTM 4 → 4" in listed


def test_variables_of_a_layer_that_it_should_not_have(tmp_path):
    import h5py

    weights.save(make("LSTM", 3, 4), tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5", "a") as file:
        file["layers/lstm/cell/vars/3"] = np.ones(3, "f4")
        file["layers/lstm/more"] = np.ones(3, "i4")
        file["layers/dropout/seed_generator/vars/0"] = np.ones(2, "u4")
        file["optimizer/vars/0"] = np.ones(3, "f4")
    with pytest.raises(ValueError, match="weights in") as caught:
        fastrnn.load(tmp_path / "a.weights.h5")
    assert "/layers/lstm, /layers/lstm/cell/vars, which no layer" in str(caught.value)


def test_seeds_and_what_trains_are_no_weights(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, 3)), L.Dropout(0.5), L.GRU(4, return_sequences=True, dropout=0.5),
         L.Dense(1)]
    )  # fmt: skip
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.zeros((2, 3, 3)), np.zeros((2, 3, 1)), verbose=0)
    for name in ("a.weights.h5", "a.keras"):
        (model.save if name == "a.keras" else model.save_weights)(tmp_path / name)
        assert len(fastrnn.load(tmp_path / name).modules) == 2


def test_a_keras_archive_with_more_weights_than_layers(tmp_path):
    weights.save(make("GRU", 3, 4), tmp_path / "a.keras")
    two = fastrnn.Sequential(make("GRU", 3, 4), fastrnn.Linear(4, 2, seed=0))
    weights.save(two, tmp_path / "b.weights.h5")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.write(tmp_path / "b.weights.h5", "model.weights.h5")
    with pytest.raises(ValueError, match=r"a\.keras': it has weights in /layers/dense/vars, which"):
        fastrnn.load(tmp_path / "a.keras")


def extra(kind, path):
    """A whole model's file with one tensor more."""
    layer, more = make("LSTM", 3, 4), np.ones(5, np.float32)
    if kind == "torch":
        values = {name: torch.from_numpy(v.copy()) for name, v in layer.parameters.items()}
        torch.save(values | {"bn.running_mean": torch.from_numpy(more)}, path)
    elif kind == "fastrnn":
        layer.save(path)
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata()
        values = {name: np.array(v) for name, v in layer.parameters.items()}
        safetensors.numpy.save_file(values | {"bn.running_mean": more}, path, metadata)
    elif kind == "haste":
        weights.save(layer, path)
        with np.load(path) as file:
            np.savez(path, **dict(file), running_mean=more)
    elif kind == "rtneural":
        weights.save(layer, path)
        found = json.loads(path.read_text())
        found["layers"][0]["weights"].append(more.tolist())
        path.write_text(json.dumps(found))
    else:
        weights.save(layer, path)
        model = onnx.load(path)
        model.graph.initializer.append(numpy_helper.from_array(more, "l1.B"))
        onnx.save(model, path)


@pytest.mark.parametrize(
    ("kind", "suffix", "message"),
    [
        ("torch", ".pt", "bn"),
        ("fastrnn", ".safetensors", "bn.running_mean"),
        ("haste", ".npz", "it holds the unknown running_mean"),
        ("rtneural", ".json", r"layer 0 \(lstm\) has for weights 4 of them"),
        ("onnx", ".onnx", "l1.R|l1.B"),
    ],
)
def test_one_tensor_more(kind, suffix, message, tmp_path):
    path = tmp_path / f"more{suffix}"
    extra(kind, path)
    with pytest.raises(ValueError, match=rf"more\{suffix}'.*({message})"):
        fastrnn.load(path)


def test_a_graph_whose_other_nodes_have_weights(tmp_path):
    """One LSTM in front of a product with weights is not the model."""
    layer = make("LSTM", 3, 4)
    fastrnn.onnx.save(layer, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    del model.metadata_props[:]
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones((4, 2), "f"), "projection"))
    graph.node.append(helper.make_node("MatMul", [graph.output[0].name, "projection"], ["z"]))
    graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"a\.onnx'.*projection"):
        fastrnn.load(tmp_path / "a.onnx")
    (found,) = fastrnn.onnx.load(tmp_path / "a.onnx").values()
    assert found.hidden_size == 4


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".onnx", ".keras", ".weights.h5", ".npz"])
def test_a_model_saves_itself_in_the_format_of_the_name(suffix, tmp_path):
    layer = make("LSTM", 3, 5)
    layer.save(tmp_path / f"m{suffix}")
    weights.save(layer, tmp_path / f"w{suffix}")
    head = (tmp_path / f"m{suffix}").read_bytes()[:4]
    assert head == (tmp_path / f"w{suffix}").read_bytes()[:4]
    np.testing.assert_array_equal(outputs(fastrnn.load(tmp_path / f"m{suffix}")), outputs(layer))
    if suffix in (".pt", ".pth"):
        found = torch.load(tmp_path / f"m{suffix}", weights_only=True)
        assert sorted(found) == sorted(layer.parameters)


def test_a_name_that_a_format_cannot_have_the_model_for(tmp_path):
    with pytest.raises(ValueError, match="no projection"):
        make("LSTM", 3, 5, proj_size=2).save(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["", ".bin", ".pt", ".onnx", ".keras", ".h5", ".json", ".npz"])
def test_fastrnns_own_file_is_known_under_any_name(suffix, tmp_path):
    layer = make("GRU", 3, 5, 2, batch_first=True)
    path = tmp_path / f"model{suffix}"
    weights.save(layer, path, to="fastrnn")
    loaded = fastrnn.load(path)
    assert loaded.config() == layer.config()
    if suffix in ("", ".bin"):  # of no format's
        layer.save(path)
        assert fastrnn.load(path).config() == layer.config()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"PK\x03\x04", b"\x80\x02cos\nsystem\n."])
def test_nobody_is_told_to_switch_safety_off(content, tmp_path):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.pt'") as caught:
        fastrnn.load(tmp_path / "m.pt")
    assert "weights_only" not in str(caught.value)


def test_a_name_that_is_no_text(tmp_path):
    """An initializer, a node, an input or an operator of ONNX whose name is no UTF-8."""
    fastrnn.onnx.save(make("GRU", 3, 5), tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    for name in (b"l0.W", b"GRU", b"onnx-input" if b"onnx-input" in data else b"l0.R"):
        assert name in data
        (tmp_path / "b.onnx").write_bytes(data.replace(name, b"\xff" + name[1:]))
        for load in (fastrnn.load, fastrnn.onnx.load):
            with pytest.raises(ValueError, match=r"b\.onnx'.* is no UTF-8"):
                load(tmp_path / "b.onnx")
