"""Run a sound through a recurrent network, as an audio plug-in would: in blocks, in real time.

It writes a WAV file of a plucked string, and teaches a network the sound of an overdriven
amplifier: an LSTM as it was drawn, whose 48 outputs a linear layer mixes, fitted in closed form.
Then a stream takes another WAV file through it in blocks of 64 samples, and writes what comes out.

    python examples/sound.py

prints how much of the amplifier's sound is missed (the energy of the error over the sound's), the
real-time factor, and whether blocks give the bits of single samples.
"""

import tempfile
import time
import wave
from pathlib import Path

import numpy as np

import fastrnn

RATE, BLOCK = 44_100, 64  # samples a second, and to a block


def write(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes())


def read(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (data / 32768).astype(np.float32)[:, None]  # (T, 1)


def plucked(path: Path, seconds: int, seed: int) -> np.ndarray:
    """Write a WAV file of a string that is plucked twice a second; its samples (T, 1)."""
    t, notes = np.arange(RATE // 2) / RATE, []
    for pitch in np.random.default_rng(seed).choice([110, 147, 196, 247], 2 * seconds):
        tones = [np.sin(2 * np.pi * pitch * k * t) / k * np.exp(-3 * k * t) for k in range(1, 6)]
        notes.append(0.4 * sum(tones))
    write(path, np.concatenate(notes))
    return read(path)


def amplifier(x: np.ndarray) -> np.ndarray:
    """Drive, uneven clipping, and a filter that lets low tones pass."""
    clipped, y, level = np.tanh(4 * x + 0.3) - np.tanh(0.3), np.empty_like(x), 0.0
    for k in range(len(x)):
        level += 0.3 * (clipped[k, 0] - level)
        y[k] = 0.7 * level
    return y


def main(folder: Path) -> None:
    lstm, mix = fastrnn.LSTM(1, 48, seed=0), fastrnn.Linear(48, 1, seed=0)
    lstm.update({name: 3 * value for name, value in lstm.parameters.items() if "ih" in name})
    x = plucked(folder / "lesson.wav", 3, seed=0)
    found = np.linalg.lstsq(np.column_stack([lstm(x)[0], x**0]), amplifier(x), rcond=None)[0]
    mix.update({"weight": found[None, :-1, 0], "bias": found[-1]})

    x = plucked(folder / "clean.wav", 4, seed=1)
    stream = fastrnn.Sequential(lstm, mix).stream()
    stream.warmup()  # compiles, so that no block waits for it
    y, start = np.empty_like(x), time.perf_counter()
    for at in range(0, len(x), BLOCK):
        stream.block(x[at : at + BLOCK], out=y[at : at + BLOCK])
    taken, wanted = time.perf_counter() - start, amplifier(x)
    write(folder / "driven.wav", y)
    print(f"missed of the sound: {np.sum((y - wanted) ** 2) / np.sum(wanted**2):.2%}")
    print(f"real-time factor: {taken * RATE / len(x):.4f} (below 1: faster than the sound)")
    stream.reset()
    print(f"same bits, sample by sample: {all(map(np.equal, map(stream.step, x), y))}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
