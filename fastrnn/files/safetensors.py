"""Arrays by name in safetensors files, and the metadata beside them. BF16 becomes float32."""

import os
from collections.abc import Mapping
from json import loads as parse
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import budget as budgets
from fastrnn.files import json
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn.files.paths import path_of
from fastrnn_kernels import bfloat16, handlers
from fastrnn_kernels.cache.files import write_whole

#: What tensors are read of, by safetensors' names.
_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def write(
    tensors: Mapping[str, Array],
    path: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write arrays by name; the file appears whole or not at all."""
    from safetensors.numpy import save as serialize

    write_whole(path_of(path), serialize(dict(tensors), metadata))


def read(path: str, prefix: str) -> tuple[dict[str, str], dict[str, Array]]:
    """A file's metadata, and the tensors whose names begin with a prefix.

    Raises OSError if it cannot be read, ValueError if it is cut short, is no safetensors file, or
    if a tensor is of a type that NumPy has not.
    """
    from safetensors import SafetensorError, safe_open

    budgets.checked(path)
    with open(path, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        many = int.from_bytes(opened.read(8), "little")
        header = opened.read(many) if many < size else b""  # else safetensors tells
    try:
        check_header(header, Budget(size))
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            types = {name: file.get_slice(name).get_dtype() for name in names}
            for name, kind in types.items():
                if kind not in _TYPES:
                    raise ValueError(
                        f"file {path!r}: {name} is of {kind}, wanted one of {', '.join(_TYPES)}"
                    )
            halves = parse(header) if "BF16" in types.values() else {}
            tensors = {
                name: _bfloat16(path, 8 + many, halves[name])
                if kind == "BF16"
                else file.get_tensor(name)
                for name, kind in types.items()
            }
            return file.metadata() or {}, tensors
    except MisfitError as error:
        raise ValueError(f"file {path!r}: {error}") from None
    except (SafetensorError, TypeError, AttributeError) as error:
        handlers.pass_on(error)
        raise ValueError(f"file {path!r} is no whole safetensors file: {error}") from error


def is_one(path: str) -> bool:
    """Whether a file begins as those of the format do, whatever its name says."""
    with open(path, "rb") as file:
        head = file.read(9)
        size = os.fstat(file.fileno()).st_size
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def check_header(header: bytes, room: Budget) -> None:
    """Raise MisfitError where what a header names would take too much, parsed three times."""
    for _ in range(3):
        json.check(header, room, "its header")


def _bfloat16(path: str, start: int, entry: Mapping[str, Any]) -> Array:
    """A tensor of BF16, which NumPy has not, as float32; of a file that safetensors has checked.

    start: where tensors begin; entry: what the header says of this one.
    """
    begin, end = entry["data_offsets"]
    with open(path, "rb") as file:
        file.seek(start + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return bfloat16.values(halves).reshape(entry["shape"])
