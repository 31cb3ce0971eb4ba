"""`fastrnn show`, and `--prefix` of the commands that take a model's file."""

import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import fastrnn
from cases import make
from fastrnn import weights
from fastrnn.cli.main import main


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def checkpoint(tmp_path):
    """A file whose whole is no model."""
    modules = torch.nn.ModuleDict(
        {
            "enc": torch.nn.LSTM(3, 5, 2, bidirectional=True),
            "conv": torch.nn.Conv1d(1, 2, 3),
            "step": torch.nn.GRUCell(4, 6),
            "head": torch.nn.Linear(5, 2),
        }
    )
    torch.save({"model": modules.state_dict(), "epoch": 3}, tmp_path / "c.pt")
    return tmp_path / "c.pt"


def rows(text):
    """The table's rows, cut where columns are apart."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]


@pytest.mark.smoke
def test_what_a_file_holds(checkpoint):
    result = run("show", checkpoint)
    assert result.exit_code == 0, result.output
    found = rows(result.output)
    assert found[0] == [f"{checkpoint}: torch"]
    sizes = sum(v.size for v in fastrnn.LSTM(3, 5, 2, bidirectional=True).parameters.values())
    many = f"{sizes:,}"
    states = "h (4, B, 5), c (4, B, 5)"
    assert ["enc", "LSTM 3 → 5, 2 levels, both directions", states, many] in found
    assert ["step", "GRUCell 4 → 6", "h (B, 6)", "216"] in found
    assert ["head", "Linear 5 → 2", "-", "12"] in found
    (left,) = (row for row in found if row[0] == "conv")
    assert left[1] == "weight (2, 1, 3), bias (2,)"
    assert "wanted that of a linear layer" in left[2]


def test_one_part(checkpoint):
    result = run("show", checkpoint, "--prefix", "enc")
    assert result.exit_code == 0, result.output
    assert "LSTM 3 → 5" in result.output
    assert "conv" not in result.output
    result = run("show", checkpoint, "--prefix", "other")
    assert (result.exit_code, "nothing under 'other'" in result.output) == (1, True)


@pytest.mark.parametrize(
    "suffix", [".safetensors", ".pt", ".keras", ".weights.h5", ".onnx", ".json"]
)
def test_every_format(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    weights.save(fastrnn.Sequential(make("GRU", 3, 5), fastrnn.Linear(5, 2, seed=0)), path)
    result = run("show", path)
    assert result.exit_code == 0, result.output
    kind = weights.format_of(path)
    assert rows(result.output)[0] == [f"{path}: {kind}"]
    assert "GRU 3 → 5" in result.output
    assert "Linear 5 → 2" in result.output
    for name in [row[0] for row in rows(result.output)[2:]]:
        assert fastrnn.load(path, prefix=name).parameters


def test_a_layer_of_hastes(tmp_path):
    weights.save(make("LSTM", 3, 5), tmp_path / "m.npz")
    result = run("show", tmp_path / "m.npz")
    assert ["-", "LSTM 3 → 5", "h (1, B, 5), c (1, B, 5)", "200"] in rows(result.output)


def test_what_cannot_be_shown(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"{}")
    result = run("show", tmp_path / "a.onnx")
    assert (result.exit_code, "is no ONNX model" in result.output) == (1, True)
    result = run("show", tmp_path / "a.onnx", "--from", "word")
    assert (result.exit_code, "'word' is none of" in result.output) == (2, True)


def test_streams_of_one_layer(tmp_path):
    torch.manual_seed(0)
    modules = torch.nn.ModuleDict({"a": torch.nn.GRU(3, 5), "conv": torch.nn.Conv1d(1, 2, 3)})
    torch.save({"net": modules.state_dict()}, tmp_path / "c.pt")
    x = np.random.default_rng(0).standard_normal((7, 3), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = ("stream", tmp_path / "c.pt", tmp_path / "x.npy", tmp_path / "y.npy", "--quiet")
    assert "prefix takes" in run(*arguments).output
    result = run(*arguments, "--prefix", "a")
    assert result.exit_code == 0, result.output
    with torch.no_grad():
        wanted = modules["a"](torch.from_numpy(x[:, None]))[0][:, 0].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, rtol=1e-5, atol=1e-6)


def test_exports_of_one_layer(tmp_path):
    modules = torch.nn.ModuleDict({"a": torch.nn.GRU(3, 5), "conv": torch.nn.Conv1d(1, 2, 3)})
    torch.save({"net": modules.state_dict()}, tmp_path / "c.pt")
    result = run("export", tmp_path / "c.pt", "-o", tmp_path / "out", "--prefix", "a")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "model.h").exists()
