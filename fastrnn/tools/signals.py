"""Signals in files and pipes, read and written a few steps at a time.

NumPy's .npy (T, I) or (T,); .csv, a step to a line; .wav, PCM of 8 to 32 bits, channels as
inputs, full scale as 1; and "-", the standard input or output, as CSV.
"""

import io
import sys
import wave
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.files import Part

#: Formats by the suffix of a file's name.
SUFFIXES = (".npy", ".csv", ".wav")
PIPE = "-"
#: Characters of a line of CSV: beside its values, and for each of them.
_LONG, _LONG_VALUE = 1 << 16, 64


class SignalError(ValueError):
    """What is wrong with a signal's file, by its name."""


def _suffix(path: str) -> str:
    if path == PIPE:
        return ".csv"
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise SignalError(f"file {path!r} is none of {', '.join(SUFFIXES)}")
    return suffix


class Reader:
    """A signal of `width` values a step.

    Attributes:
        steps: how many there are, None where only their end will tell.
        rate: steps a second, if the file knows.
        bytes_per_sample: of a .wav file, else None.
    """

    def __init__(self, path: str, width: int, dtype: np.dtype[Any]) -> None:
        """Open a file, or "-"; SignalError for what is no signal of this width."""
        self.path, self.width, self.dtype = path, width, dtype
        self.steps: int | None = None
        self.rate: float | None = None
        self.bytes_per_sample: int | None = None
        self._open: Any = None
        suffix = _suffix(path)
        if suffix == ".npy":
            self._array = self._npy()
            self.steps = len(self._array)
        elif suffix == ".wav":
            try:
                self._open = wave.open(path, "rb")  # noqa: SIM115
            except (wave.Error, EOFError) as error:
                handlers.pass_on(error)
                raise SignalError(f"file {path!r} is no PCM of WAV: {error}") from None
            self.steps, self.rate = self._open.getnframes(), float(self._open.getframerate())
            self.bytes_per_sample = self._open.getsampwidth()
            if self.bytes_per_sample > 4:
                raise SignalError(f"file {path!r} has more than 32 bits to a sample")
            self._check(self._open.getnchannels(), "channels")
        elif path == PIPE:
            self._open = sys.stdin
        else:
            self._open = open(path, encoding="utf-8-sig")  # noqa: SIM115
        self._suffix = suffix

    def _check(self, width: int, what: str) -> None:
        if width != self.width:
            raise SignalError(
                f"file {self.path!r} has {width} {what}, the model takes {self.width}"
            )

    def _npy(self) -> Any:
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            handlers.pass_on(error)
            raise SignalError(f"file {self.path!r} is no whole .npy file: {error}") from None
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise SignalError(f"file {self.path!r} holds no numbers")
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim != 2:
            raise SignalError(f"file {self.path!r} has shape {array.shape}, wanted (T, I) or (T,)")
        self._check(array.shape[1], "columns")
        return array

    def blocks(self, many: int) -> Iterator[Array]:
        """The signal in arrays (steps, width) of `many` steps, the last of fewer."""
        if self._suffix == ".npy":
            for t in range(0, len(self._array), many):
                yield np.ascontiguousarray(self._array[t : t + many], self.dtype)
        elif self._suffix == ".wav":
            yield from self._wav_blocks(many)
        else:
            yield from self._csv_blocks(many)

    def _wav_blocks(self, many: int) -> Iterator[Array]:
        size = self.bytes_per_sample or 0
        while data := self._open.readframes(many):
            samples = np.frombuffer(data, np.uint8)
            if samples.size % (size * self.width):
                raise SignalError(f"file {self.path!r} ends within a step")
            parts = samples.reshape(-1, size)
            if size == 1:  # without a sign there, and only there
                values = parts[:, 0].astype(np.float64) - 128
            else:
                padded = np.zeros((len(parts), 4), np.uint8)
                padded[:, 4 - size :] = parts
                values = padded.view("<i4")[:, 0].astype(np.float64) / 2.0 ** (32 - 8 * size)
            scaled = values / 2.0 ** (8 * size - 1)
            yield np.ascontiguousarray(scaled.reshape(-1, self.width), self.dtype)

    def _lines(self) -> Iterator[str]:
        try:
            while line := self._open.readline(_LONG + _LONG_VALUE * self.width):
                if not line.endswith("\n") and len(line) >= _LONG:
                    raise SignalError(
                        f"file {self.path!r} has a line of more than {len(line):,} characters"
                    )
                yield line
        except UnicodeDecodeError as error:
            raise SignalError(f"file {self.path!r} is no text: {error}") from None

    def _csv_blocks(self, many: int) -> Iterator[Array]:
        rows: list[list[float]] = []
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                row = [float(field) for field in line.split(",")]
            except ValueError:
                raise SignalError(
                    f"file {self.path!r}, line {number}: {line.strip()[:60]!r} is no row of numbers"
                ) from None
            if len(row) != self.width:
                raise SignalError(
                    f"file {self.path!r}, line {number} has {len(row)} values, "
                    f"the model takes {self.width}"
                )
            rows.append(row)
            if len(rows) == many:
                yield np.array(rows, self.dtype)
                rows.clear()
        if rows:
            yield np.array(rows, self.dtype)

    def close(self) -> None:
        """Close the file."""
        if self._open is not None and self.path != PIPE:
            self._open.close()


class Writer:
    """A signal that is being written; a file appears whole, at `finish`, or not at all."""

    def __init__(
        self,
        path: str,
        width: int,
        dtype: np.dtype[Any],
        rate: float | None = None,
        bytes_per_sample: int = 2,
    ) -> None:
        """Begin a file, or the standard output; rate and bytes are for .wav."""
        self.path, self._suffix = path, _suffix(path)
        if self._suffix == ".wav":
            if not 1 <= (rate or 44_100) < 2**31:
                raise SignalError(f"file {path!r} cannot have {rate} steps a second")
            if width >= 2**16:
                raise SignalError(f"file {path!r} cannot have {width} channels")
        self._blocks: list[Array] = []
        self._open: Any = None
        self._empty = np.zeros((0, width), dtype)
        self._bytes = bytes_per_sample
        if path == PIPE:
            self._open = sys.stdout
            return
        self._part = Part(Path(path))  # whether it can be written is known now
        if self._suffix == ".csv":
            self._open = io.TextIOWrapper(self._part.file, "utf-8")
        elif self._suffix == ".wav":
            self._open = wave.open(self._part.file, "wb")  # noqa: SIM115
            self._open.setnchannels(width)
            self._open.setsampwidth(bytes_per_sample)
            self._open.setframerate(rate or 44_100)

    def write(self, block: Array) -> None:
        """Add an array (steps, width)."""
        with self._named():
            self._write(block)

    def _named(self) -> AbstractContextManager[None]:
        """In which the system's errors name the file."""
        return nullcontext() if self.path == PIPE else self._part.named()

    def _write(self, block: Array) -> None:
        if self._suffix == ".npy":
            self._blocks.append(block.copy())
        elif self._suffix == ".wav":
            self._open.writeframesraw(self._pcm(block))
        else:
            text = io.StringIO()
            np.savetxt(
                text, block, fmt="%.9g" if block.dtype == np.float32 else "%.17g", delimiter=","
            )
            self._open.write(text.getvalue())
            if self.path == PIPE:
                self._open.flush()  # who reads the pipe wants the step now

    def _pcm(self, block: Array) -> bytes:
        full = 2.0 ** (8 * self._bytes - 1)
        values = np.nan_to_num(np.clip(np.rint(block.astype(np.float64) * full), -full, full - 1))
        if self._bytes == 1:
            parts = (values + 128).astype(np.uint8)
        else:
            parts = values.astype("<i4").reshape(-1, 1).view(np.uint8)[:, : self._bytes]
        pcm: bytes = np.ascontiguousarray(parts).tobytes()
        return pcm

    def finish(self) -> None:
        """Put the file in its place."""
        if self.path == PIPE:
            return
        with self._named():
            if self._suffix == ".npy":
                whole = np.concatenate(self._blocks) if self._blocks else self._empty
                np.lib.format.write_array(self._part.file, whole, allow_pickle=False)
            elif self._suffix == ".wav":
                self._open.close()  # which writes the header again, and leaves the file open
            else:
                self._open.flush()
        self._part.finish()

    def abandon(self) -> None:
        """Leave nothing behind of what was not finished."""
        if self.path == PIPE:
            return
        try:
            if self._open is not None:
                self._open.close()
        except (OSError, ValueError, wave.Error) as error:  # what went wrong is told already
            handlers.pass_on(error)
        self._part.abandon()
