"""`fastrnn convert` as a user has it."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from click.testing import CliRunner

import fastrnn
from cases import make
from fastrnn import weights
from fastrnn.cli.main import main
from fastrnn.tools.convert import check_source


def run(*arguments):
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


@pytest.mark.smoke
def test_it_tells_the_difference(tmp_path):
    make("LSTM", 3, 5, 2).save(tmp_path / "a.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / "b.keras")
    assert result.exit_code == 0, result.output
    told = re.fullmatch(r".*b\.keras \([\d,]+ bytes\); largest difference (\S+)\n", result.output)
    assert 0 <= float(told[1]) <= 1e-5
    result = run(tmp_path / "b.keras", tmp_path / "c.onnx")
    assert "largest difference 0.0e+00" in result.output


def test_formats_by_option(tmp_path):
    make("GRU", 3, 5).save(tmp_path / "a.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--to", "haste")
    assert result.exit_code == 0, result.output
    result = run(tmp_path / "b.safetensors", tmp_path / "c.model", "--to", "torch")
    assert result.exit_code == 0, result.output
    result = run(tmp_path / "c.model", tmp_path / "d.onnx", "--from", "torch")
    assert result.exit_code == 0, result.output
    result = run(tmp_path / "d.onnx", tmp_path / "e.safetensors", "--to", "torch")
    assert result.exit_code == 0, result.output
    with safetensors.safe_open(tmp_path / "e.safetensors", "np") as file:
        assert file.metadata() is None
        assert sorted(file.keys()) == ["bias_hh_l0", "bias_ih_l0", "weight_hh_l0", "weight_ih_l0"]


def test_one_module_of_a_checkpoint(tmp_path):
    both = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 5), "b": torch.nn.GRU(4, 2)})
    torch.save(both.state_dict(), tmp_path / "a.pt")
    result = run(tmp_path / "a.pt", tmp_path / "b.safetensors", "--prefix", "b")
    assert result.exit_code == 0, result.output
    assert isinstance(fastrnn.load(tmp_path / "b.safetensors"), fastrnn.GRU)


@pytest.mark.parametrize(
    ("target", "options", "code", "message"),
    [
        ("b.docx", (), 1, "path ends in '.docx', wanted one of"),
        ("b.npz", (), 1, "Haste's layout is for one level"),
        ("b.pt", ("--to", "word"), 2, "'word' is none of fastrnn, torch"),
        ("b.pt", ("--from", "word"), 2, "'word' is none of fastrnn, torch"),
        ("b.pt", ("--from", "onnx"), 1, "is no ONNX model"),
        ("none/b.pt", (), 1, "b.pt'"),
    ],
)
def test_what_cannot_be(target, options, code, message, tmp_path):
    make("LSTM", 3, 5, 2).save(tmp_path / "a.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / target, *options)
    assert result.exit_code == code
    assert message in result.output
    assert not (tmp_path / target).exists()


def test_errors_name_the_target_and_not_what_is_gone(tmp_path):
    """A .weights.h5 of two classes is written, and cannot be read back."""
    made = fastrnn.Sequential(make("LSTM", 3, 5), make("GRU", 5, 5))
    made.save(tmp_path / "a.safetensors")
    target = tmp_path / "b.weights.h5"
    result = run(tmp_path / "a.safetensors", target)
    assert result.exit_code == 1
    assert f"file {str(target)!r}: it has recurrent layers of several" in result.output


def test_a_name_in_capitals(tmp_path):
    make("GRU", 3, 5).save(tmp_path / "a.safetensors")
    for to in ("torch", "haste"):
        result = run(tmp_path / "a.safetensors", tmp_path / "B.SAFETENSORS", "--to", to)
        assert result.exit_code == 0, result.output
        assert isinstance(fastrnn.load(tmp_path / "B.SAFETENSORS"), fastrnn.GRU)


def test_one_module_of_safetensors(tmp_path):
    both = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 5), "b": torch.nn.GRU(4, 2)})
    arrays = {name: value.numpy() for name, value in both.state_dict().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / "b.onnx", "--prefix", "b")
    assert result.exit_code == 0, result.output
    assert isinstance(fastrnn.load(tmp_path / "b.onnx"), fastrnn.GRU)


def test_bfloat16_is_written_as_float32(tmp_path):
    layer = make("LSTM", 3, 5, dtype="bfloat16")
    layer.save(tmp_path / "a.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / "b.onnx")
    assert result.exit_code == 0, result.output
    assert fastrnn.load(tmp_path / "b.onnx").compute == "float32"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".onnx", ".keras", ".json", ".npz"])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
def test_a_single_step_of_torchs(kind, suffix, tmp_path):
    """It stays one, or becomes a layer of one level where a format has no steps."""
    module = getattr(torch.nn, kind)(3, 5)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    result = run(tmp_path / "a.pt", tmp_path / f"b{suffix}")
    assert result.exit_code == 0, result.output
    found = fastrnn.load(tmp_path / f"b{suffix}")
    found = found.modules[0] if isinstance(found, fastrnn.Sequential) else found
    steps = suffix in (".safetensors", ".pt")
    assert type(found).__name__ == (kind if steps else kind.removesuffix("Cell"))
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted[0] if kind == "LSTMCell" else wanted
    if steps:
        h = found(x.numpy())
        h = h[0] if kind == "LSTMCell" else h
    else:
        rows = x.numpy()[:, None] if found.batch_first else x.numpy()[None]
        h = found(rows)[0].reshape(2, 5)
    np.testing.assert_allclose(h, wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["a.keras", "a.onnx", "a.pt", "a.safetensors"])
def test_one_layer_of_each_format(name, tmp_path):
    made = fastrnn.Sequential(make("GRU", 3, 5), fastrnn.Linear(5, 2, seed=0))
    weights.save(made, tmp_path / name)
    result = run(
        tmp_path / name, tmp_path / "b.safetensors", "--prefix", {"a.keras": "gru"}.get(name, "0")
    )
    assert result.exit_code == 0, result.output
    assert isinstance(fastrnn.load(tmp_path / "b.safetensors"), fastrnn.GRU)


def test_other_numbers_are_told(monkeypatch, tmp_path):
    """A file that gives something else when it is read is no success."""
    make("LSTM", 3, 5).save(tmp_path / "a.safetensors")
    write = weights.save

    def wrong(model, target, to=None):
        other = type(model)(**model.config())
        other.update({name: 1.01 * value for name, value in model.parameters.items()})
        write(other, target, to=to)

    monkeypatch.setattr(weights, "save", wrong)
    result = run(tmp_path / "a.safetensors", tmp_path / "b.onnx")
    assert result.exit_code == 1
    assert re.search(r"b\.onnx' was read back with results \S+ off", result.output)


KERAS = {
    "dense": "L.LSTM(4, return_sequences=True), L.Dense(2, activation='tanh')",
    "stack": "L.GRU(4, return_sequences=True), L.SimpleRNN(3)",
    "both": "L.Bidirectional(L.LSTM(4))",
}


@pytest.fixture(scope="module")
def of_keras(tmp_path_factory):
    """Models that Keras has built and saved, by NumPy's backend, in a process of its own."""
    pytest.importorskip("h5py")
    script = ["import keras; L = keras.layers"]
    for name, build in KERAS.items():
        model = f"keras.Sequential([keras.Input((None, 3)), {build}])"
        script.append(f"{model}.save('{name}.keras')")
    folder = tmp_path_factory.mktemp("keras")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(script)], check=True, cwd=folder,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", KERAS)
def test_a_model_of_keras_gives_what_it_gives_there(name, of_keras):
    path = of_keras / f"{name}.keras"
    assert check_source(path, "keras", fastrnn.load(path)) == "Keras"


def test_a_model_of_keras_that_gives_something_else_is_told(of_keras):
    path = of_keras / "both.keras"
    model = fastrnn.load(path)
    wrong = [1.5 * value for value in model.parameters.values()]
    model.update(dict(zip(model.parameters, wrong, strict=True)))
    with pytest.raises(ValueError, match=r"both\.keras' gives results \S+ off in Keras"):
        check_source(path, "keras", model)


def test_keras_is_not_asked_for_classes_of_others(tmp_path):
    """It would import the modules that the file names."""
    weights.save(make("LSTM", 3, 5), tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][-1]["config"]["kernel_initializer"] = {
        "module": "this", "class_name": "Zen", "config": {},
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        for name, content in (files | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)
    assert check_source(tmp_path / "a.keras", "keras", fastrnn.load(tmp_path / "a.keras")) is None


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN-tanh"])
def test_a_model_of_torchs_or_onnxs_gives_what_it_gives_there(cell, tmp_path):
    layer = make(cell, 3, 5, 2, bidirectional=True)
    fastrnn.onnx.save(layer, tmp_path / "a.onnx")
    assert check_source(tmp_path / "a.onnx", "onnx", layer) == "ONNX"
    assert check_source(tmp_path / "a.pt", "torch", layer) == "PyTorch"
    assert check_source(tmp_path / "a.json", "rtneural", layer) is None
    other = make(cell, 3, 5, 2, bidirectional=True, seed=7)
    with pytest.raises(ValueError, match=r"a\.onnx' gives results \S+ off in ONNX"):
        check_source(tmp_path / "a.onnx", "onnx", other)


def test_a_source_that_is_another_model_is_told(tmp_path, monkeypatch):
    make("LSTM", 3, 5).save(tmp_path / "a.onnx")
    read = weights.load

    def wrong(path, **options):
        model = read(path, **options)
        if Path(path).name == "a.onnx":
            model.update({"bias_hh_l0": model.parameters["bias_hh_l0"] + 1})
        return model

    monkeypatch.setattr(weights, "load", wrong)
    result = run(tmp_path / "a.onnx", tmp_path / "b.pt")
    assert result.exit_code == 1
    assert re.search(r"a\.onnx' gives results \S+ off in ONNX", result.output)
    assert not (tmp_path / "b.pt").exists()
