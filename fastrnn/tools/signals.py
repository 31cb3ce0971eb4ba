"""Signals in files and pipes, read and written a few steps at a time.

NumPy's .npy (T, I) or (T,); .csv, a step to a line; .wav, PCM of 8 to 32 bits or floats, channels
as inputs, full scale as 1; and "-", the standard input or output, as CSV.
"""

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.tools.wav import WavError, WavReader, WavWriter
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


def _standard(stream: Any, name: str) -> Any:
    """The standard input or output, if this process has one."""
    if stream is None or stream.closed:
        raise SignalError(f"'-' is the standard {name}, which is closed here")
    return stream


def _to_pipe(stream: Any, text: str) -> None:
    """Write what a reader of the pipe wants now."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:  # who read it has seen enough
        raise
    except OSError:
        # What could not be written would be tried again when Python ends, with an error of its own.
        if stream is sys.stdout:
            sys.stdout = None
        raise


class Reader:
    """A signal of `width` values a step.

    Attributes:
        steps: how many there are, None where only their end will tell.
        rate: steps a second, if the file knows.
        sample: the type of a .wav file's samples (`wav.py`), else None.
    """

    def __init__(self, path: str, width: int, dtype: np.dtype[Any]) -> None:
        """Open a file, or "-"; SignalError for what is no signal of this width."""
        self.path, self.width, self.dtype = path, width, dtype
        self.steps: int | None = None
        self.rate: float | None = None
        self.sample: str | None = None
        self._open: Any = None
        suffix = _suffix(path)
        if suffix == ".npy":
            self._array = self._npy()
            self.steps = len(self._array)
        elif suffix == ".wav":
            self._open = open(path, "rb")  # noqa: SIM115
            try:
                self._take_wav()
            except BaseException:
                self._open.close()
                raise
        elif path == PIPE:
            self._open = _standard(sys.stdin, "input")
        else:
            self._open = open(path, encoding="utf-8-sig")  # noqa: SIM115
        self._suffix = suffix

    def _take_wav(self) -> None:
        try:
            self._wav = WavReader(self._open)
        except WavError as error:
            handlers.pass_on(error)
            raise SignalError(f"file {self.path!r} is no WAV file to read: {error}") from None
        self.steps, self.rate = self._wav.steps, float(self._wav.rate)
        self.sample = self._wav.sample
        self._check(self._wav.channels, "channels")

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
        while True:
            try:
                block = self._wav.read(many)
            except WavError as error:
                handlers.pass_on(error)
                raise SignalError(f"file {self.path!r} is damaged: {error}") from None
            if len(block) == 0:
                self._open.close()
                return
            yield np.ascontiguousarray(block, self.dtype)

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
        sample: str = "i2",
    ) -> None:
        """Begin a file, or the standard output; rate and sample are for .wav."""
        self.path, self._suffix = path, _suffix(path)
        if self._suffix == ".wav":
            if not 1 <= (rate or 44_100) < 2**31:
                raise SignalError(f"file {path!r} cannot have {rate} steps a second")
            if width >= 2**16:
                raise SignalError(f"file {path!r} cannot have {width} channels")
        self._blocks: list[Array] = []
        self._open: Any = None
        self._empty = np.zeros((0, width), dtype)
        if path == PIPE:
            self._open = _standard(sys.stdout, "output")
            return
        self._part = Part(Path(path))  # whether it can be written is known now
        if self._suffix == ".csv":
            self._open = io.TextIOWrapper(self._part.file, "utf-8")
        elif self._suffix == ".wav":
            self._wav = WavWriter(self._part.file, width, rate or 44_100, sample)

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
            self._wav.write(block)
        else:
            text = io.StringIO()
            np.savetxt(
                text, block, fmt="%.9g" if block.dtype == np.float32 else "%.17g", delimiter=","
            )
            if self.path == PIPE:
                _to_pipe(self._open, text.getvalue())
            else:
                self._open.write(text.getvalue())

    def finish(self) -> None:
        """Put the file in its place."""
        if self.path == PIPE:
            return
        with self._named():
            if self._suffix == ".npy":
                whole = np.concatenate(self._blocks) if self._blocks else self._empty
                np.lib.format.write_array(self._part.file, whole, allow_pickle=False)
            elif self._suffix == ".wav":
                self._wav.finish()  # which writes the header again, and leaves the file open
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
        except (OSError, ValueError) as error:  # what went wrong is told already
            handlers.pass_on(error)
        self._part.abandon()
