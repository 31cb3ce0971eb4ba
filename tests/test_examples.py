"""The programs in `examples` run, each in a process of its own, and their numbers hold."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

FOLDER = Path(__file__).parent.parent / "examples"


def needs(*modules):
    """A mark for a test that is skipped, by name, where a module is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def said(name, folder, *arguments):
    """What an example prints."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(folder), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def number(text, output):
    """The number behind a text."""
    found = re.search(re.escape(text) + r"\s*([\d.e+-]+)", output)
    assert found, output
    return float(found[1])


def test_forecaster(tmp_path):
    output = said("forecaster.py", tmp_path)
    naive, ours = number("naive forecast:", output), number("fastrnn's LSTM:", output)
    assert naive == 1.1428  # of the series alone, and so of any machine
    assert ours < naive / 10  # a thirtieth where this was written; training amplifies last bits


@needs("sklearn", "matplotlib")
def test_sentiment(tmp_path):
    short = "--reviews", "2000", "--epochs", "6", "--picture", "read.png"
    output = said("sentiment/main.py", tmp_path, *short)
    assert number("logistic regression:", output) < 70
    assert number("fastrnn's GRU:", output) > 97
    assert (tmp_path / "read.png").stat().st_size > 10_000


def test_sound(tmp_path):
    output = said("sound.py", tmp_path)
    # Fitted in closed form: last bits change nothing that is printed but the last digit.
    assert 1.5 < number("missed of the sound:", output) < 2.1
    # An order slower than where this was written, a busy machine is still on time.
    assert number("real-time factor:", output) < 1
    assert "same bits, sample by sample: True" in output
    assert list(tmp_path.iterdir()) == []  # files of its own go with it


def test_inside_njit(tmp_path):
    output = said("inside_njit.py", tmp_path)
    assert number("without the controller: swings by up to", output) > 3  # it falls
    assert number("with the controller: swings by up to", output) < 0.05
    assert number("a tick, network and pendulum:", output) > 0


def test_from_c(tmp_path):
    output = said("from_c.py", tmp_path)
    assert number("voice.o:", output.replace(",", "")) > 2000  # the code, and 1,000 weights
    if any(map(which, ("cc", "gcc", "clang"))):
        assert number("steps of the program:", output) == 1000
        # The same code for the same machine: nine digits are enough to tell the bits.
        assert number("largest difference:", output) == 0
    else:
        assert "no C compiler was found" in output


@needs("torch")
def test_in_torch(tmp_path):
    output = said("in_torch.py", tmp_path)
    assert "lstm: swapped" in output
    assert number("largest difference of gradients:", output) < 1e-6  # of gradients below 0.1
    assert number("right on unseen sequences:", output) > 95


@needs("keras")
@pytest.mark.skipif(
    not any(map(find_spec, ("torch", "jax", "tensorflow"))), reason="Keras has no backend here"
)
def test_in_keras(tmp_path):
    output = said("in_keras.py", tmp_path)
    assert number("right on unseen sequences:", output) > 90
    assert number("Keras's own layer differs by", output) < 1e-5  # of numbers from 0 to 1


@needs("onnx")
def test_in_onnx(tmp_path):
    output = said("in_onnx.py", tmp_path)
    assert number("fastrnn's operators: off by", output) < 1e-6
    assert number("its own: off by", output) < 1e-5
    assert number("read again, a GRU: off by", output) == 0
    if find_spec("onnxruntime"):
        assert number("onnxruntime: off by", output) < 1e-5


@needs("torch")
def test_several_processes(tmp_path):
    from torch import distributed

    if not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    output = said("several_processes.py", tmp_path)
    found = re.findall(r"process (\d), step (\d): gradients differ by ([\d.e+-]+)", output)
    assert [pair for *pair, _ in found] == [["0", "1"], ["0", "2"], ["1", "1"], ["1", "2"]]
    assert all(float(off) < 1e-6 for *_, off in found)  # of gradients up to 0.1


def test_every_example_is_here():
    text = Path(__file__).read_text(encoding="utf-8")
    for file in FOLDER.glob("*.py"):
        assert f'said("{file.name}"' in text
        assert len(file.read_text(encoding="utf-8").splitlines()) < 80
