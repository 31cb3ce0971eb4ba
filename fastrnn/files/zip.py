"""Zip archives and arrays in them, read without trusting what they say of their sizes."""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array

#: What a small archive may grow to; weights hardly shrink, so that a large one stays below ten
#: times its size.
_ROOM = 1 << 24


def members(path: str, wanted: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files in an archive by name, all or those wanted.

    Raises OSError if it cannot be read, ValueError if it is no whole archive or would grow to
    much more than it is.
    """
    with open(path, "rb") as file:
        data = file.read()
    room = max(10 * len(data), _ROOM)
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if wanted and info.filename not in wanted:
                    continue
                room -= info.file_size
                if info.file_size < 0 or room < 0:
                    raise ValueError(f"{info.filename} would have {info.file_size:,} bytes")
                found[info.filename] = archive.read(info)
    except Exception as error:  # zipfile raises its own, zlib's, struct's and others
        raise ValueError(f"file {path!r} is no whole archive: {error!r}") from None
    return found


def arrays(path: str) -> dict[str, Array]:
    """The arrays of an .npz file by name; raises as `members`."""
    found = {}
    for name, data in members(path).items():
        try:
            found[name.removesuffix(".npy")] = _array(data)
        except Exception as error:  # NumPy reads the header as Python's literals
            raise ValueError(f"file {path!r}: {name} is no array: {error}") from None
    return found


def _array(data: bytes) -> Array:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, by_column, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"it has dtype {dtype}, wanted numbers")
    rest = data[file.tell() :]
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"it has shape {shape} and {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if by_column else "C")


def npz(found: Mapping[str, Array]) -> bytes:
    """Arrays by name as an .npz file."""
    data = io.BytesIO()
    np.savez(data, **dict(found))  # type: ignore[arg-type]
    return data.getvalue()
