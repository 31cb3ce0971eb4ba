"""`fastrnn stream`: models along signals in files and pipes."""

import errno
import io
import os
import wave

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from cases import make
from fastrnn.cli.main import main
from fastrnn.tools.signals import Reader, SignalError, Writer


@pytest.fixture
def model(tmp_path):
    one = fastrnn.Sequential(make("LSTM", 2, 8), fastrnn.Linear(8, 2, activation="tanh", seed=0))
    one.save(tmp_path / "model.safetensors")
    return one


def run(tmp_path, *arguments, code=0, **options):
    done = CliRunner().invoke(
        main, ["stream", str(tmp_path / "model.safetensors"), *arguments], **options
    )
    assert done.exit_code == code, done.output
    return done


def signal(steps=300):
    return np.random.default_rng(0).uniform(-0.9, 0.9, (steps, 2)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 64, 1000])
def test_npy(tmp_path, model, block):
    x = signal()
    np.save(tmp_path / "x.npy", x)
    done = run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--block", str(block))
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(y, model.stream().block(x), strict=True)
    what = "step" if block == 1 else f"call of {block} steps"
    assert "300 steps in " in done.output
    assert f"a {what}: p50 " in done.output
    assert "p99.9" in done.output
    assert "worst" in done.output
    assert "real-time factor" not in done.output


@pytest.mark.smoke
def test_csv_and_a_rate(tmp_path, model):
    x = signal()
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    done = run(tmp_path, str(tmp_path / "x.csv"), str(tmp_path / "y.csv"), "--rate", "100")
    y = np.loadtxt(tmp_path / "y.csv", delimiter=",", dtype=np.float32)
    np.testing.assert_array_equal(y, model.stream().block(x))
    assert "real-time factor" in done.output
    assert "at 100 steps a second" in done.output


def test_pipes(tmp_path, model):
    x = signal(5)
    text = "".join(f"{a:.9g}, {b:.9g}\n" for a, b in x)
    done = run(tmp_path, "-", "-", input=text)
    y = np.loadtxt(io.StringIO(done.stdout), delimiter=",", dtype=np.float32)
    np.testing.assert_array_equal(y, model.stream().block(x))
    quiet = run(tmp_path, "-", "-", "--quiet", input=text)
    assert quiet.stdout == done.stdout
    assert quiet.stderr == ""


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_wav(tmp_path, model, size):
    x = signal()
    writer = Writer(str(tmp_path / "x.wav"), 2, x.dtype, 8000, size)
    writer.write(x)
    writer.finish()
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, size, 8000)
    (read,) = Reader(str(tmp_path / "x.wav"), 2, x.dtype).blocks(1000)
    np.testing.assert_allclose(read, x, rtol=0, atol=0.6 / 2 ** (8 * size - 1) + 1e-7)
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), "--block", "32")
    assert "at 8000 steps a second" in done.output
    reader = Reader(str(tmp_path / "y.wav"), 2, x.dtype)
    assert (reader.steps, reader.rate, reader.bytes_per_sample) == (300, 8000.0, size)
    (y,) = reader.blocks(1000)
    wanted = model.stream().block(read)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=0.6 / 2 ** (8 * size - 1) + 1e-7)


def test_wav_is_clipped_at_full_scale(tmp_path):
    writer = Writer(str(tmp_path / "x.wav"), 1, np.dtype("float32"), 8000, 2)
    writer.write(np.array([[2], [-2], [np.nan], [np.inf], [0.5]], np.float32))
    writer.finish()
    (read,) = Reader(str(tmp_path / "x.wav"), 1, np.dtype("float32")).blocks(10)
    np.testing.assert_allclose(read[:, 0], [1, -1, 0, 1, 0.5], atol=1e-4)


def test_a_signal_without_steps(tmp_path, model):
    np.save(tmp_path / "x.npy", signal(0))
    done = run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"))
    assert "no steps" in done.output
    assert np.load(tmp_path / "y.npy").shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"no array", "x.npy' is no whole .npy file"),
        ("x.npy", np.zeros((3, 5), np.float32), "has 5 columns, the model takes 2"),
        ("x.npy", np.zeros(3, np.float32), "has 1 columns, the model takes 2"),
        ("x.npy", np.zeros((3, 2, 2)), r"has shape (3, 2, 2), wanted (T, I) or (T,)"),
        ("x.npy", np.array([["a", "b"]]), "holds no numbers"),
        ("x.csv", b"1,2\n3\n", "x.csv', line 2 has 1 values, the model takes 2"),
        ("x.csv", b"1,2\n\n3,x\n", "x.csv', line 3: '3,x' is no row of numbers"),
        ("x.csv", b"\xff\xfe1", "x.csv' is no text"),
        ("x.csv", b"1,2\n" + bytes(1 << 20), "x.csv' has a line of more than 65,664 characters"),
        ("x.wav", b"RIFF", "x.wav' is no PCM of WAV"),
        ("x.txt", b"1,2\n", "x.txt' is none of .npy, .csv, .wav"),
        ("none.npy", None, "none.npy"),
    ],
)
def test_inputs_that_cannot_be_read(tmp_path, model, name, content, message):
    file, out = tmp_path / name, tmp_path / "y.npy"
    out.write_bytes(b"before")
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif content is not None:
        file.write_bytes(content)
    done = run(tmp_path, str(file), str(out), code=1)
    assert message in " ".join(done.output.split())
    assert out.read_bytes() == b"before"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".wav"])
def test_errors_of_writing_name_the_output(suffix, tmp_path, monkeypatch):
    """Where its folder is missing, and where the disk is full at the end."""
    missing = tmp_path / "missing" / f"y{suffix}"
    with pytest.raises(FileNotFoundError) as caught:
        Writer(str(missing), 2, np.dtype("float32"))
    assert caught.value.filename == str(missing)
    path = tmp_path / f"y{suffix}"
    writer = Writer(str(path), 2, np.dtype("float32"))
    writer.write(signal())

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.finish()
    assert caught.value.filename == str(path)
    writer.abandon()
    assert not list(tmp_path.iterdir())


def test_a_link_with_a_name_that_can_be_guessed_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f"y.csv.{os.getpid()}.part").symlink_to(victim)
    writer = Writer(str(tmp_path / "y.csv"), 2, np.dtype("float32"))
    writer.write(signal(1))
    writer.finish()
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "y.csv").read_text().count("\n") == 1


def test_wav_files_that_are_cut_or_too_fine(tmp_path, model):
    writer = Writer(str(tmp_path / "x.wav"), 2, np.dtype("float32"), 8000, 2)
    writer.write(signal())
    writer.finish()
    whole = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(whole[:-3])
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), code=1)
    assert "x.wav' ends within a step" in " ".join(done.output.split())
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[32:36] = (12).to_bytes(2, "little") + (48).to_bytes(2, "little")
    (tmp_path / "x.wav").write_bytes(data)
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), code=1)
    assert "more than 32 bits" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "x.wav"]


@pytest.mark.parametrize("rate", ["nan", "inf", "0.3", "1e10", "-1", "0"])
def test_rates_that_are_none(tmp_path, model, rate):
    np.save(tmp_path / "x.npy", signal())
    code = 2 if rate in ("nan", "inf", "-1", "0") else 1
    run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / "y.wav"), "--rate", rate, code=code)
    assert not list(tmp_path.glob("y.wav*"))


def test_outputs_that_cannot_be_written(tmp_path, model):
    np.save(tmp_path / "x.npy", signal())
    for out in ("y.txt", "none/y.npy"):
        done = run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / out), code=1)
        assert out.rpartition("/")[2] in done.output


def test_models_that_cannot_stream(tmp_path):
    make("LSTM", 2, 3, bidirectional=True).save(tmp_path / "model.safetensors")
    np.save(tmp_path / "x.npy", signal())
    done = run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), code=1)
    assert "is bidirectional and cannot stream" in done.output
    (tmp_path / "model.safetensors").write_bytes(b"")
    done = run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), code=1)
    assert "is no whole safetensors file" in done.output


def test_a_reader_says_what_is_wrong():
    with pytest.raises(SignalError, match="is none of"):
        Reader("x.mp3", 1, np.dtype("float32"))
