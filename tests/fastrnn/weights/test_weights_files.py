"""Saving and loading: the same layer comes back, and a bad file never becomes a layer."""

import pickle

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

import fastrnn
from cases import CELLS, DTYPES, as_state, make, problem, states


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_round_trip(cell, dtype, tmp_path):
    path = tmp_path / "layer.safetensors"
    options = {"bidirectional": True, "batch_first": True, "dropout": 0.5, "dtype": dtype}
    layer = make(cell, 5, 7, 2, **options)
    layer.save(path)
    loaded = fastrnn.load(path)
    assert type(loaded) is type(layer)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first"):
        assert getattr(loaded, name) == getattr(layer, name), name
    for name in ("dropout", "bidirectional", "dtype", *CELLS[cell][1]):
        assert getattr(loaded, name) == getattr(layer, name), name
    for name, array in layer.state_dict().items():
        assert np.array_equal(loaded.parameters[name], array), name
    p = problem(layer, 4, 3).swap()
    y, state = layer(p.x, as_state(p.state))
    loaded_y, loaded_state = loaded(p.x, as_state(p.state))
    assert np.array_equal(loaded_y, y)
    for mine, its in zip(states(loaded_state), states(state), strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.smoke
@pytest.mark.parametrize("bias", [False, True])
def test_round_trip_of_a_projected_lstm(bias, tmp_path):
    layer = make("LSTM", 5, 7, proj_size=3, bias=bias)
    layer.save(tmp_path / "layer.safetensors")
    loaded = fastrnn.load(tmp_path / "layer.safetensors")
    assert (loaded.proj_size, loaded.bias) == (3, bias)
    p = problem(layer, 4, 3)
    assert np.array_equal(loaded(p.x, p.state)[0], layer(p.x, p.state)[0])


def test_a_path_may_be_a_string(tmp_path):
    layer = make("GRU", 5, 7)
    path = str(tmp_path / "layer.safetensors")
    layer.save(path)
    assert np.array_equal(
        fastrnn.load(path).parameters["bias_hh_l0"], layer.parameters["bias_hh_l0"]
    )


def test_the_file_is_plain_safetensors_with_torchs_names(tmp_path):
    """Any reader of the format finds the state dict."""
    layer = make("GRU", 5, 7, 2)
    layer.save(tmp_path / "layer.safetensors")
    stored = safetensors.numpy.load_file(tmp_path / "layer.safetensors")
    assert sorted(stored) == sorted(layer.state_dict())
    for name, array in layer.state_dict().items():
        assert np.array_equal(stored[name], array)


def test_save_replaces_the_file(tmp_path):
    path = tmp_path / "layer.safetensors"
    make("LSTM", 5, 7).save(path)
    layer = make("GRU", 3, 4, seed=5)
    layer.save(path)
    assert isinstance(fastrnn.load(path), fastrnn.GRU)
    assert fastrnn.load(path).hidden_size == 4
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def good(path):
    """A good file's tensors and metadata."""
    make("GRU", 5, 7).save(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    return safetensors.numpy.load_file(path), metadata


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated(share, tmp_path):
    path = tmp_path / "cut.safetensors"
    good(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        fastrnn.load(path)


FOREIGN = {
    "text": b"weight_ih_l0 = 3\n" * 20,
    "zeros": bytes(1000),
    "a huge header": b"\xff" * 1000,
    "a pickle": pickle.dumps({"weight_ih_l0": [1.0, 2.0]}),
    "a zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign(kind, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        fastrnn.load(path)


def test_safetensors_of_another_program(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"embedding": np.ones((3, 4), np.float32)}, path)
    with pytest.raises(ValueError, match=r"other\.safetensors.*fastrnn"):
        fastrnn.load(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        fastrnn.load(tmp_path / "absent.safetensors")


def drop(tensors):
    del tensors["bias_hh_l0"]


def add(tensors):
    tensors["bias_hh_l1"] = tensors["bias_hh_l0"]


def misshape(tensors):
    tensors["bias_hh_l0"] = tensors["bias_hh_l0"][:-1].copy()


def retype(tensors):
    tensors["bias_hh_l0"] = np.ones(21, np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"bias_hh_l0"),
        (add, r"bias_hh_l1"),
        (misshape, r"bias_hh_l0.*\b20\b.*\b21\b"),
        (retype, r"bias_hh_l0.*int32"),
    ],
)
def test_entries_that_do_not_fit(change, message, tmp_path):
    path = tmp_path / "layer.safetensors"
    tensors, metadata = good(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises((ValueError, TypeError), match=message):
        fastrnn.load(path)


def test_configuration_that_is_no_layers(tmp_path):
    """Every entry of the metadata, garbled one at a time."""
    path = tmp_path / "layer.safetensors"
    tensors, metadata = good(path)
    assert metadata
    for key in metadata:
        safetensors.numpy.save_file(tensors, path, metadata | {key: "garbled"})
        with pytest.raises(ValueError, match=r"layer\.safetensors"):
            fastrnn.load(path)


def test_configuration_of_another_size(tmp_path):
    path = tmp_path / "layer.safetensors"
    tensors, _ = good(path)
    make("GRU", 5, 8).save(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"_l0.*\b21\b.*\b24\b"):
        fastrnn.load(path)


def test_one_module_of_a_state_dict(tmp_path):
    path, layer = tmp_path / "model.safetensors", make("GRU", 5, 7)
    named = {f"encoder.rnn.{name}": value for name, value in layer.parameters.items()}
    safetensors.numpy.save_file(named | {"encoder.rnn2.conv": np.ones((3, 4, 5))}, path)
    for prefix in ("encoder.rnn", "encoder.rnn."):
        loaded = fastrnn.load(path, prefix=prefix)
        assert repr(loaded) == repr(layer)
        for name, array in layer.parameters.items():
            assert np.array_equal(loaded.parameters[name], array)
    with pytest.raises(ValueError, match=r"model\.safetensors' has no names that begin with 'x\.'"):
        fastrnn.load(path, prefix="x")
    layer.save(path)
    with pytest.raises(ValueError, match=r"prefix is 'x\.', and .* holds a whole model"):
        fastrnn.load(path, prefix="x")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32(dtype, tmp_path):
    state = {name: value.to(dtype) for name, value in torch.nn.LSTM(5, 7).state_dict().items()}
    state["bias_ih_l0"][:3] = torch.tensor([float("nan"), -float("inf"), -0.0])
    safetensors.torch.save_file(state, tmp_path / "half.safetensors")
    loaded = fastrnn.load(tmp_path / "half.safetensors")
    assert loaded.dtype == "float32"
    for name, value in state.items():
        wanted = value.float().numpy()
        assert np.array_equal(loaded.parameters[name].view(np.uint32), wanted.view(np.uint32)), name


def test_other_types_are_named(tmp_path):
    state = {"rnn.weight_ih_l0": torch.zeros(4).to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors': rnn.weight_ih_l0 is of F8_E4M3,"):
        fastrnn.load(tmp_path / "other.safetensors")
