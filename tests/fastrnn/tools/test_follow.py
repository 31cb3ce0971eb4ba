"""`fastrnn stream`: models along signals in files and pipes."""

import errno
import io
import os
import shlex
import struct
import subprocess
import sys
import wave
from pathlib import Path

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


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_weights_in_less(tmp_path, model, weights):
    x = signal()
    np.save(tmp_path / "x.npy", x)
    run(tmp_path, str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--weights", weights)
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(y, model.stream(weights=weights).block(x), strict=True)
    assert not np.array_equal(y, model.stream().block(x))


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
    x, sample = signal(), "u1" if size == 1 else f"i{size}"
    writer = Writer(str(tmp_path / "x.wav"), 2, x.dtype, 8000, sample)
    writer.write(x)
    writer.finish()
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, size, 8000)
    (read,) = Reader(str(tmp_path / "x.wav"), 2, x.dtype).blocks(1000)
    np.testing.assert_allclose(read, x, rtol=0, atol=0.6 / 2 ** (8 * size - 1) + 1e-7)
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), "--block", "32")
    assert "at 8000 steps a second" in done.output
    reader = Reader(str(tmp_path / "y.wav"), 2, x.dtype)
    assert (reader.steps, reader.rate, reader.sample) == (300, 8000.0, sample)
    (y,) = reader.blocks(1000)
    wanted = model.stream().block(read)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=0.6 / 2 ** (8 * size - 1) + 1e-7)


def wav(kind, samples, rate=8000, bits=None, extensible=False, before=b"", size=None):
    """A file as other programs write it: samples (steps, channels) of a type of NumPy's."""
    item, channels = samples.dtype.itemsize, samples.shape[1]
    bits = bits or 8 * item
    told = struct.pack("<HII", channels, rate, rate * channels * item)
    told += struct.pack("<HH", channels * item, bits)
    if extensible:
        guid = struct.pack("<H", kind) + bytes.fromhex("000000001000800000aa00389b71")
        told = struct.pack("<H", 0xFFFE) + told + struct.pack("<HHI", 22, bits, 3) + guid
    else:
        told = struct.pack("<H", kind) + told
    data = samples.tobytes()
    chunks = b"fmt " + struct.pack("<I", len(told)) + told + before
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


#: Chunks that other programs put before the samples, one of an odd size.
LIST = b"fact" + struct.pack("<II", 4, 300) + b"LIST" + struct.pack("<I", 5) + b"INFO!" + bytes(1)


@pytest.mark.parametrize("options", [{}, {"extensible": True}, {"before": LIST}])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_wav_of_floats(tmp_path, model, dtype, options):
    """Values as they are, also beyond full scale; what comes out is written in the same type."""
    x = 2 * signal()
    (tmp_path / "x.wav").write_bytes(wav(3, x.astype(dtype), **options))
    run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), "--block", "64")
    reader = Reader(str(tmp_path / "y.wav"), 2, x.dtype)
    assert (reader.steps, reader.rate, reader.sample) == (300, 8000.0, dtype[1:])
    (y,) = reader.blocks(1000)
    np.testing.assert_array_equal(y, model.stream().block(x), strict=True)
    written = (tmp_path / "y.wav").read_bytes()
    assert struct.unpack("<I", written[4:8])[0] == len(written) - 8
    assert written[20:22] == b"\x03\x00"
    at = written.index(b"fact")
    assert struct.unpack("<II", written[at + 4 : at + 12]) == (4, 300)
    assert written.endswith(y.astype(dtype).tobytes())


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("extensible", [False, True])
def test_wav_of_24_bits(tmp_path, extensible, size):
    """Also as it comes from a pipe, whose writer did not know its size."""
    values = np.array([[0, 1], [-1, 2**23 - 1], [-(2**23), 1 << 22]], "<i4")
    parts = values.reshape(-1, 1).view(np.uint8)[:, :3].reshape(3, 6)
    content = wav(1, parts.copy().view("V3"), bits=24, extensible=extensible, size=size)
    (tmp_path / "x.wav").write_bytes(content)
    reader = Reader(str(tmp_path / "x.wav"), 2, np.dtype("float64"))
    assert (reader.steps, reader.sample) == (3, "i3")
    (read,) = reader.blocks(10)
    np.testing.assert_array_equal(read, values / 2.0**23, strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.replace(b"RIFF", b"RIFX", 1), "it does not begin as RIFF and WAVE"),
        (lambda w: w.replace(b"fmt ", b"fnt ", 1), "its samples come before their format"),
        (lambda w: w[:20] + b"\x02" + w[21:], "its format is 2, wanted 1 (PCM) or 3 (floats)"),
        (lambda w: w[:20] + b"\x03" + w[21:], "it has 16 bits to a sample, floats have 32 or"),
        (lambda w: w[:22] + b"\x00" + w[23:], "it has 0 channels"),
        (lambda w: w[:32] + b"\x07" + w[33:], "steps a second of 7 bytes"),
        (lambda w: w[:16] + b"\xff" * 4 + w[20:], "its format takes 4294967295 bytes"),
        (lambda w: w[:16] + b"\x02\x00" + w[18:], "its format takes 2 bytes"),
        (lambda w: w[:30], "it ends before its samples begin"),
        (lambda w: w[:36] + b"LIST" + b"\xff" * 4 + w[36:], "it ends before its samples begin"),
    ],
)
def test_wav_files_that_are_none(tmp_path, model, change, message):
    (tmp_path / "x.wav").write_bytes(change(wav(1, np.zeros((9, 2), "<i2"))))
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), code=1)
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "y.wav").exists()


def test_wav_of_an_odd_number_of_bytes_is_padded(tmp_path):
    writer = Writer(str(tmp_path / "x.wav"), 1, np.dtype("float32"), 8000, "u1")
    writer.write(np.zeros((3, 1), np.float32))
    writer.finish()
    written = (tmp_path / "x.wav").read_bytes()
    assert written[4:8] == struct.pack("<I", len(written) - 8)
    assert written[40:] == struct.pack("<I", 3) + b"\x80\x80\x80\x00"


#: What a shell does, what is said, and how the command ends.
REDIRECTIONS = {
    "stdin": (
        "{fastrnn} stream model.safetensors - y.csv <&-",
        "the standard input, which is closed",
    ),
    "stdout": (
        "{fastrnn} stream model.safetensors x.csv - >&-",
        "standard output, which is closed",
    ),
    "full": ("{fastrnn} stream model.safetensors x.csv - >/dev/full", "No space left on device"),
    "info": ("{fastrnn} info >/dev/full", "No space left on device"),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", REDIRECTIONS)
def test_closed_and_full_streams_are_told_in_a_line(tmp_path, model, name):
    done = shell(tmp_path, REDIRECTIONS[name][0])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert REDIRECTIONS[name][1] in done.stderr


def test_who_reads_no_further_is_no_error(tmp_path, model):
    done = shell(tmp_path, "{fastrnn} stream model.safetensors x.csv - --quiet | head -n 1")
    assert done.stderr == ""
    x = np.loadtxt(tmp_path / "x.csv", delimiter=",", dtype=np.float32)
    y = np.loadtxt(io.StringIO(done.stdout), delimiter=",", dtype=np.float32)
    np.testing.assert_array_equal(y, model.stream().step(x[0]))


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_nobody_has_to_listen(tmp_path, model, closed):
    done = shell(tmp_path, f"{{fastrnn}} stream model.safetensors x.csv y.csv {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(np.loadtxt(tmp_path / "y.csv", delimiter=",")) == 5000
    done = shell(tmp_path, f"{{fastrnn}} stream model.safetensors none.csv y.csv {closed}")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout


def shell(folder, command):
    """A line of a shell, in a folder with a model and a signal that fills more than a pipe."""
    np.savetxt(folder / "x.csv", np.resize(signal(), (5000, 2)), delimiter=",")
    program = f"{shlex.quote(sys.executable)} -m fastrnn"
    return subprocess.run(
        command.format(fastrnn=program), shell=True, cwd=folder, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


def test_wav_is_clipped_at_full_scale(tmp_path):
    writer = Writer(str(tmp_path / "x.wav"), 1, np.dtype("float32"), 8000, "i2")
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
        ("x.wav", b"RIFF", "x.wav' is no WAV file to read: it ends before"),
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
    writer = Writer(str(tmp_path / "x.wav"), 2, np.dtype("float32"), 8000, "i2")
    writer.write(signal())
    writer.finish()
    whole = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(whole[:-3])
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), code=1)
    assert "x.wav' is damaged: it ends within a step" in " ".join(done.output.split())
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[32:36] = (12).to_bytes(2, "little") + (48).to_bytes(2, "little")
    (tmp_path / "x.wav").write_bytes(data)
    done = run(tmp_path, str(tmp_path / "x.wav"), str(tmp_path / "y.wav"), code=1)
    assert "it has 48 bits to a sample, PCM has 8 to 32 bits" in " ".join(done.output.split())
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
