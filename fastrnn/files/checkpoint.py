"""What torch.save wrote, an archive or a pickle without one, read without torch.

Nothing in a file is run (`pickle`), and a tensor's values are looked at once it is asked for them.
"""

import io
import math
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import pickle
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn.files.pickle import Foreign
from fastrnn.files.zip import Archive
from fastrnn_kernels import bfloat16

__all__ = ["Foreign", "Tensor", "read"]

#: NumPy's types of torch's storages. BFloat16 is what NumPy has not.
_STORAGES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "u2", "Long": "i8", "Int": "i4",
    "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
#: What a pickle without an archive begins with.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class _Storage:
    kind: str  # as in "Float"
    size: int
    values: Callable[[], bytes]
    order: str  # of bytes, "<" or ">"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file.

    shape: as the file says, which is not checked before its values are asked for.
    """

    shape: tuple[int, ...]
    _storage: _Storage
    _offset: int
    _strides: tuple[int, ...]
    _budget: Budget

    @property
    def kind(self) -> str:
        """Torch's name of the type, as in "Float"."""
        return self._storage.kind

    @property
    def is_float(self) -> bool:
        """Whether it is of numbers with a fraction."""
        return self.kind in ("Float", "Double", "Half", "BFloat16")

    def array(self, where: str) -> Array:
        """Its values, of half precision as float32; raises MisfitError for what cannot be."""
        dtype = np.dtype(self._storage.order + _STORAGES[self.kind])
        many = math.prod(self.shape)
        if not many:
            raise MisfitError(f"{where} has shape {self.shape}, which has no values")
        if many * dtype.itemsize > self._budget.size:  # a tensor may repeat a few without end
            raise MisfitError(f"{where} has shape {self.shape}, more than the file holds")
        self._budget.take(many * max(4, dtype.itemsize) * 2, where)
        values = self._storage.values()
        if len(values) < self._storage.size * dtype.itemsize:
            raise MisfitError(f"{where} has a storage of {len(values)} bytes, which is cut short")
        flat = np.frombuffer(values, dtype, self._storage.size)
        last = self._offset + sum(
            (size - 1) * step for size, step in zip(self.shape, self._strides, strict=True)
        )
        if last >= flat.size:
            raise MisfitError(f"{where} has shape {self.shape}, more than its storage holds")
        steps = [step * dtype.itemsize for step in self._strides]
        # Within the storage, as was checked.
        view = np.lib.stride_tricks.as_strided(
            flat[self._offset :], self.shape, steps, writeable=False
        )
        if self.kind == "BFloat16":
            return bfloat16.values(np.ascontiguousarray(view, np.uint16))
        return np.ascontiguousarray(view, np.float32 if self.kind == "Half" else dtype.type)


def read(data: bytes, budget: Budget) -> Any:
    """What a file holds: dictionaries, lists, numbers, text, tensors, and what is foreign.

    Raises MisfitError where it is no whole file of torch.save's.
    """
    if data[:2] == b"PK":
        return _of_archive(Archive(data, budget), budget)
    return _of_pickles(data, budget)


def _of_archive(archive: Archive, budget: Budget) -> Any:
    first = [name.partition("/")[0] for name in archive if "/" in name][:1]
    folder = f"{first[0]}/" if first else ""
    if folder + "archive_format" in archive:
        raise MisfitError(
            "it is a program of torch.export's: load it by torch.export.load and save the "
            "state_dict of that, by torch.save(program.state_dict, ...)"
        )
    if folder + "data.pkl" not in archive:
        raise MisfitError(f"it is no archive of torch's: it has no {folder}data.pkl")
    if any(name.startswith(folder + "code/") for name in archive):
        raise MisfitError(
            "it is a TorchScript archive (torch.jit.save), a program: load it by torch.jit.load "
            "and save the state_dict() of that"
        )
    order = "<"
    if folder + "byteorder" in archive:
        order = ">" if archive.read(folder + "byteorder") == b"big" else "<"
    kept: dict[str, bytes] = {}

    def storage(found: Any) -> _Storage:
        kind, key, size = _entry(found)

        def values() -> bytes:
            name = f"{folder}data/{key}"
            if name not in archive:
                raise MisfitError(f"it has no {name}")
            if name not in kept:
                kept[name] = archive.read(name)
            return kept[name]

        return _Storage(kind, size, values, order)

    file = io.BytesIO(archive.read(folder + "data.pkl"))
    return pickle.read(file, budget, _known(budget), storage)


def _of_pickles(data: bytes, budget: Budget) -> Any:
    file = io.BytesIO(data)
    kept: dict[str, bytes] = {}

    def storage(found: Any) -> _Storage:
        kind, key, size = _entry(found)
        if len(found) > 5 and found[5] is not None:
            raise MisfitError("its storages are views of others, as torch 0.4 wrote them")

        def values() -> bytes:
            if key not in kept:
                raise MisfitError(f"it has no storage {key}")
            return kept[key]

        stored = _Storage(kind, size, values, order)
        storages[key] = stored
        return stored

    def plain() -> Any:
        return pickle.read(file, budget, {}, lambda found: Foreign("storage"))

    storages: dict[str, _Storage] = {}
    if data[:1] != b"\x80":
        raise MisfitError("it is neither an archive nor a pickle")
    first = plain()
    if first != _MAGIC or type(first) is not int:
        return first  # a pickle of another program
    version, system = plain(), plain()
    if version != _VERSION or not isinstance(system, dict):
        raise MisfitError(f"it is of version {version!r} of torch's files, wanted {_VERSION}")
    order = "<" if system.get("little_endian", sys.byteorder == "little") else ">"
    found = pickle.read(file, budget, _known(budget), storage)
    keys = plain()
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in storages:
            raise MisfitError(f"it has a storage {key!r} that nothing in it is of"[:300])
        size = struct.unpack(order + "q", file.read(8).ljust(8, b"\xff"))[0]
        itemsize = np.dtype(_STORAGES[storages[key].kind]).itemsize
        if size != storages[key].size or size * itemsize > len(data) - file.tell():
            raise MisfitError(f"it is cut short: storage {key} would have {size:,} values")
        budget.take(size * itemsize, f"storage {key}")
        kept[key] = file.read(size * itemsize)
    return found


def _entry(found: Any) -> tuple[str, str, int]:
    """The type, the key and the size of what stands for a storage."""
    if not isinstance(found, tuple) or len(found) < 5 or found[0] != "storage":
        raise MisfitError("its pickle names something outside of it that is no storage")
    kind = found[1].name if isinstance(found[1], Foreign) else ""
    word = kind.removeprefix("torch.").removesuffix("Storage")
    if word not in _STORAGES:
        raise MisfitError(f"it has a storage of the type {kind}")
    key, size = found[2], found[4]
    if not isinstance(key, str) or not isinstance(size, int) or size < 0:
        raise MisfitError("its pickle has a storage without a name or a size")
    return word, key, size


def _known(budget: Budget) -> pickle.Known:
    """What tensors are made by, and the containers that they stand in."""

    def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage):
            return Foreign("tensor without a storage")
        if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise MisfitError("it has a tensor whose shape is none")
        if len(shape) > 32 or max(numbers) >= 1 << 62:
            raise MisfitError("it has a tensor of more values than any")
        return Tensor(tuple(shape), storage, offset, tuple(strides), budget)

    def mapping(pairs: Any = ()) -> dict[Any, Any]:
        return {key: value for key, value in pairs if isinstance(key, str)}

    def given(value: Any, *_: Any) -> Any:
        return value

    return {
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_parameter": given,
        "torch._utils._rebuild_parameter_with_state": given,
        "torch.nn.parameter.Parameter": given,
        "torch.Size": given,
        "collections.OrderedDict": mapping,
    }
