"""WAV files: PCM of 8 to 32 bits and floats of 32 or 64, read and written a few steps at a time.

The chunks of the RIFF form as Microsoft and IBM's "Multimedia Programming Interface and Data
Specifications 1.0" (1991) has them; WAVE_FORMAT_EXTENSIBLE as in `mmreg.h`.
"""

import struct
from typing import IO, Any

import numpy as np

from fastrnn.arrays import Array

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
#: What follows the format's number in the GUID of an extensible format.
_GUID = bytes.fromhex("000000001000800000aa00389b71")
#: The sizes that programs write of a stream whose end they do not know.
_UNKNOWN = (0, 0xFFFFFFFF, 0xFFFFFFFF - 36)
#: Bytes of a format's description up to which it is read.
_LONGEST = 1 << 12


class WavError(ValueError):
    """What is wrong with a WAV file."""


class WavReader:
    """A file of samples.

    Attributes:
        channels, rate: values a step, and steps a second.
        steps: how many there are, as far as the file goes; None of what cannot be sought in.
        sample: the type of a sample: "u1", "i2", "i3", "i4", "f4" or "f8".
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Of a file open for reading, at its begin; raises WavError for what is no such file."""
        self._file = file
        riff, form = self._exactly(4), self._exactly(8)[4:]
        if riff != b"RIFF" or form != b"WAVE":
            raise WavError("it does not begin as RIFF and WAVE")
        told = False
        while True:
            name, size = struct.unpack("<4sI", self._exactly(8))
            if name == b"data":
                break
            if name == b"fmt " and not told:
                if not 16 <= size <= _LONGEST:
                    raise WavError(f"its format takes {size} bytes, wanted 16 to {_LONGEST}")
                self._take_format(self._exactly(size))
                told = True
                self._skip(size % 2)
            else:
                self._skip(size + size % 2)
        if not told:
            raise WavError("its samples come before their format")
        self._step = self.channels * int(self.sample[1])
        self._left = self._data_bytes(size)
        self.steps = -(-self._left // self._step)

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise WavError("it ends before its samples begin")
        return data

    def _skip(self, size: int) -> None:
        self._file.seek(size, 1)

    def _take_format(self, data: bytes) -> None:
        kind, channels, rate, _, step, bits = struct.unpack("<HHIIHH", data[:16])
        if kind == _EXTENSIBLE and len(data) >= 40 and data[26:40] == _GUID:
            (kind,) = struct.unpack("<H", data[24:26])
        if kind not in (_PCM, _FLOAT):
            raise WavError(f"its format is {kind}, wanted {_PCM} (PCM) or {_FLOAT} (floats)")
        size = (bits + 7) // 8
        if kind == _PCM and not 1 <= size <= 4:
            raise WavError(f"it has {bits} bits to a sample, PCM has 8 to 32 bits")
        if kind == _FLOAT and size not in (4, 8):
            raise WavError(f"it has {bits} bits to a sample, floats have 32 or 64 bits")
        if channels == 0 or rate == 0 or step != channels * size:
            raise WavError(f"it has {channels} channels, {rate} steps a second of {step} bytes")
        self.channels, self.rate = channels, rate
        self.sample = f"f{size}" if kind == _FLOAT else "u1" if size == 1 else f"i{size}"

    def _data_bytes(self, told: int) -> int:
        """Bytes of samples: as the file tells, and not beyond its end."""
        begin = self._file.tell()
        there = self._file.seek(0, 2) - begin
        self._file.seek(begin)
        return there if told in _UNKNOWN else min(told, there)

    def read(self, steps: int) -> Array:
        """The next steps (steps, channels), fewer at the end; full scale is 1.

        Raises WavError for a file that ends within a step.
        """
        data = self._file.read(min(self._left, steps * self._step))
        self._left -= len(data)
        if len(data) % self._step:
            raise WavError("it ends within a step")
        return _values(data, self.sample).reshape(-1, self.channels)


def _values(data: bytes, sample: str) -> Array:
    size = int(sample[1])
    if sample[0] == "f":
        return np.frombuffer(data, f"<{sample}")
    if sample == "u1":  # without a sign there, and only there
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    parts = np.frombuffer(data, np.uint8).reshape(-1, size)
    padded = np.zeros((len(parts), 4), np.uint8)
    padded[:, 4 - size :] = parts
    found: Array = padded.view("<i4")[:, 0].astype(np.float64) / 2.0**31
    return found


class WavWriter:
    """A file of samples that is being written: PCM is rounded and clipped at full scale."""

    def __init__(self, file: IO[bytes], channels: int, rate: float, sample: str) -> None:
        """Begin one in a file open for writing; the arguments are as WavReader tells them."""
        self._file, self._sample, self._bytes = file, sample, 0
        self._channels, self._rate = channels, round(rate)
        self._begin()

    def _begin(self) -> None:
        size, floats = int(self._sample[1]), self._sample[0] == "f"
        step = self._channels * size
        rate = min(self._rate * step, 0xFFFFFFFF)
        told = struct.pack(
            "<HHIIHH", _FLOAT if floats else _PCM, self._channels, self._rate, rate, step, 8 * size
        )
        if floats:
            told += struct.pack("<H", 0)
        chunks = [(b"fmt ", told)]
        if floats:  # what is no PCM says how many steps there are
            chunks.append((b"fact", struct.pack("<I", self._bytes // step)))
        head = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
        whole = 4 + len(head) + 8 + self._bytes + self._bytes % 2
        if whole > 0xFFFFFFFF:
            raise WavError("it would be larger than the 4 GB that a WAV file can be")
        self._file.write(b"RIFF" + struct.pack("<I", whole) + b"WAVE" + head)
        self._file.write(b"data" + struct.pack("<I", self._bytes))

    def write(self, block: Array) -> None:
        """Add steps (steps, channels)."""
        data = _samples(block, self._sample)
        self._file.write(data)
        self._bytes += len(data)

    def finish(self) -> None:
        """Write how much there is at the file's begin; the file stays open."""
        self._file.write(bytes(self._bytes % 2))
        self._file.seek(0)
        self._begin()


def _samples(block: Array, sample: str) -> bytes:
    size = int(sample[1])
    values: Any = block
    if sample[0] == "f":
        data: bytes = np.ascontiguousarray(values, f"<{sample}").tobytes()
        return data
    full = 2.0 ** (8 * size - 1)
    values = np.nan_to_num(np.clip(np.rint(block.astype(np.float64) * full), -full, full - 1))
    if sample == "u1":
        parts = (values + 128).astype(np.uint8)
    else:
        parts = values.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :size]
    return np.ascontiguousarray(parts).tobytes()
