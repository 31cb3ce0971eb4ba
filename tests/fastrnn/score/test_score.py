"""Scoring: values as the model's own calls, runs that are stopped and taken up, refusals."""

import os
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn.cli.main import main
from fastrnn.score import run, score

RNG = np.random.default_rng(0)


@pytest.fixture
def classifier():
    return fastrnn.Sequential(
        fastrnn.GRU(3, 8, seed=0), fastrnn.Pool("mean"), fastrnn.Linear(8, 2, seed=1)
    )


def test_arrays(tmp_path, classifier):
    x = RNG.standard_normal((100, 7, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert score(classifier, tmp_path / "x.npy", tmp_path / "y.npy", batch_size=3) == 100
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, classifier(x.swapaxes(0, 1))[0], rtol=1e-5, atol=1e-6)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.npy", "y.npy"]
    layer = fastrnn.LSTM(3, 4, batch_first=True, seed=0)
    score(layer, tmp_path / "x.npy", tmp_path / "all.npy")
    score(layer, tmp_path / "x.npy", tmp_path / "last.npy", which="last")
    wanted = layer(x)[0]
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "last.npy"), wanted[:, -1], rtol=1e-5, atol=1e-6)


def test_parquet_of_tokens(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    tokens = [RNG.integers(0, 9, RNG.integers(1, 20)).tolist() for _ in range(95)]
    table = pyarrow.table({"id": list(range(95)), "words": tokens})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=17)
    model = fastrnn.Sequential(fastrnn.Embedding(9, 4, seed=0), fastrnn.GRU(4, 5, seed=0))
    target = tmp_path / "y.parquet"
    score(model, tmp_path / "x.parquet", target, column="words", batch_size=2)
    found = parquet.read_table(target).to_pydict()
    assert found["sequence"] == list(range(95))
    for one, output in zip(tokens, found["output"], strict=True):
        wanted = model(np.array(one)[:, None])[0][:, 0]
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="has the columns id, words"):
        score(model, tmp_path / "x.parquet", tmp_path / "z.parquet")
    with pytest.raises(ValueError, match="results differ in shape"):
        score(model, tmp_path / "x.parquet", tmp_path / "z.npy", column="words")


def test_a_folder_of_sounds(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "sounds"
    folder.mkdir()
    for k in range(5):
        with wave.open(str(folder / f"{k}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(RNG.integers(-9000, 9000, 50 + k).astype("<i2").tobytes())
    layer = fastrnn.GRU(1, 3, seed=0)
    score(layer, folder, tmp_path / "y.parquet", which="last")
    found = parquet.read_table(tmp_path / "y.parquet").to_pydict()
    assert found["file"] == [f"{k}.wav" for k in range(5)]
    assert np.shape(found["output"]) == (5, 3)


def test_what_is_done_is_not_done_again(tmp_path, classifier, monkeypatch):
    x = RNG.standard_normal((100, 7, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    outputs, done = run._outputs, []

    def failing(model, inputs, first, last, *rest):
        if first >= 64 and len(done) < 5:
            raise OSError("no space left on device")
        done.append(first)
        return outputs(model, inputs, first, last, *rest)

    monkeypatch.setattr(run, "_outputs", failing)
    given = classifier, tmp_path / "x.npy", tmp_path / "y.npy"
    with pytest.raises(OSError, match="no space left"):
        score(*given, batch_size=1)
    assert not (tmp_path / "y.npy").exists()
    other = fastrnn.Sequential(*classifier[:2], fastrnn.Linear(8, 2, seed=5))
    with pytest.raises(ValueError, match="parts of another model"):
        score(other, *given[1:], batch_size=1)
    done.append(-1)
    assert score(*given, batch_size=1) == 100
    assert done == [0, 16, 32, 48, -1, 64, 80, 96]
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), classifier(x.swapaxes(0, 1))[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_kill_loses_nothing(tmp_path):
    model = fastrnn.Sequential(fastrnn.LSTM(8, 64, seed=0), fastrnn.Pool())
    model.save(tmp_path / "m.safetensors")
    x = RNG.standard_normal((2000, 60, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    target, parts = tmp_path / "y.npy", tmp_path / "y.npy.parts"
    command = [sys.executable, "-m", "fastrnn", "score", "m.safetensors", "x.npy", "-o", "y.npy"]
    command += ["--batch-size", "1"]
    seen = 0
    while not target.exists():
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
        wanted = seen + 3
        while process.poll() is None and seen < wanted:
            seen = len(list(parts.glob("*.npz"))) if parts.exists() else 0
            time.sleep(0.002)
        if process.poll() is None and seen < 40:
            os.kill(process.pid, signal.SIGKILL)
        told = process.communicate(timeout=120)[1]
        assert process.returncode in (0, -signal.SIGKILL), told
    np.testing.assert_allclose(np.load(target), model(x.swapaxes(0, 1))[0], rtol=1e-4, atol=1e-6)
    assert not parts.exists()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((5, 4, 2)), "sequence 0 of .* has 2 values a step, the model takes 3"),
        (np.full((5, 4, 3), np.nan), "sequence 0 of .* holds NaN"),
        (np.zeros((5, 0, 3)), "sequence 0 of .* has no steps"),
        (np.zeros((0, 4, 3)), "has no sequences"),
        (np.zeros(5), "has an array of shape"),
    ],
)
def test_bad_data(tmp_path, classifier, array, told):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=told):
        score(classifier, tmp_path / "x.npy", tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()


def test_the_command(tmp_path, classifier):
    classifier.save(tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", RNG.standard_normal((10, 4, 3)))
    told = [str(tmp_path / name) for name in ("m.safetensors", "x.npy", "y.npy")]
    command = ["score", *told[:2], "-o", told[2]]
    assert "10 sequences" in CliRunner().invoke(main, command).stderr
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "--overwrite replaces it" in again.stderr
    assert CliRunner().invoke(main, [*command, "--overwrite", "--quiet"]).output == ""
    (tmp_path / "x.npy").write_bytes(b"nothing")
    broken = CliRunner().invoke(main, [*command, "--overwrite"])
    assert "is no .npy file" in broken.stderr
    other = CliRunner().invoke(main, ["score", *told[:2], "-o", str(tmp_path / "y.csv")])
    assert "none of .npy, .parquet" in other.stderr
