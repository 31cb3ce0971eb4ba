"""Zip archives and arrays in them, read without trusting what they say of their sizes."""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import budget as budgets
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn_kernels import handlers

#: What Python takes for an entry of the archive's directory, and how one begins.
_ENTRY, _SIGNATURE = 1_000, b"PK\x01\x02"
#: The length of what stands before a file's name, and where the lengths of name and extra do.
_LOCAL, _LENGTHS = 30, 26
#: What no model needs, by zip's numbers.
_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard"}


class Archive:
    """An archive's files, inflated when they are asked for and not beyond what they say."""

    def __init__(self, data: bytes, budget: Budget) -> None:
        """Read the directory; raises MisfitError where it is none."""
        self._data, self._budget = data, budget
        budget.take(_ENTRY * data.count(_SIGNATURE), "its directory")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                self._entries = {info.filename: info for info in archive.infolist()}
        except Exception as error:  # zipfile raises its own, struct's and others
            handlers.pass_on(error)
            raise MisfitError(f"it is no whole archive: {error!r}") from error

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """The names of all files."""
        return iter(self._entries)

    def read(self, name: str) -> bytes:
        """A file's bytes; raises MisfitError where they are not what the archive says of them."""
        info = self._entries[name]
        self._budget.take(info.file_size, name)
        at = info.header_offset
        head = self._data[at : at + _LOCAL]
        if at < 0 or len(head) < _LOCAL or head[:4] != b"PK\x03\x04":
            raise MisfitError(f"it is no whole archive: {name} is not where it should be")
        start = at + _LOCAL + sum(struct.unpack_from("<HH", head, _LENGTHS))
        stored = memoryview(self._data)[start : start + info.compress_size]
        found = self._plain(info, stored)
        if len(found) != info.file_size or (info.CRC and zlib.crc32(found) != info.CRC):
            raise MisfitError(f"it is no whole archive: {name} is damaged")
        return found

    def _plain(self, info: zipfile.ZipInfo, stored: memoryview) -> bytes:
        if info.flag_bits & 1:
            raise MisfitError(f"{info.filename} is encrypted")
        if info.compress_type == zipfile.ZIP_STORED:
            return bytes(stored)
        if info.compress_type != zipfile.ZIP_DEFLATED:
            kind = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise MisfitError(f"{info.filename} is compressed by {kind}, wanted deflate or nothing")
        try:
            # A byte more than it says, which tells of what goes on.
            return zlib.decompressobj(-15).decompress(stored, info.file_size + 1)
        except zlib.error as error:
            raise MisfitError(f"it is no whole archive: {info.filename}: {error}") from None


def arrays(path: str) -> dict[str, Array]:
    """The arrays of an .npz file by name.

    Raises OSError if it cannot be read, ValueError that names it if it is no whole archive, would
    grow to much more than it is, or holds anything but arrays of numbers.
    """
    data, budget = budgets.read(path)
    try:
        archive = Archive(data, budget)
        return {name.removesuffix(".npy"): _array(name, archive.read(name)) for name in archive}
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from error.__cause__


def _array(name: str, data: bytes) -> Array:
    try:
        return _parsed(data)
    except Exception as error:  # NumPy reads the header as Python's literals
        handlers.pass_on(error)
        raise MisfitError(f"{name} is no array: {error}") from error


def _parsed(data: bytes) -> Array:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, by_column, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"it has dtype {dtype}, wanted numbers")
    rest = memoryview(data)[file.tell() :]
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"it has shape {shape} and {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if by_column else "C")


def npz(found: Mapping[str, Array]) -> bytes:
    """Arrays by name as an .npz file."""
    data = io.BytesIO()
    np.savez(data, **dict(found))  # type: ignore[arg-type]
    return data.getvalue()
