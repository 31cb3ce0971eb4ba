"""HDF5 groups and arrays in them, by h5py, read without trusting what they say of their sizes."""

import io
import re
from collections.abc import Collection
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files.errors import MisfitError


class Group:
    """A group of a file: names, and what stands under them."""

    def __init__(self, path: str, entries: dict[str, Any]) -> None:
        self._path, self._entries = path, entries

    @property
    def names(self) -> Collection[str]:
        """The names in it."""
        return self._entries

    def child(self, *names: str) -> "Group":
        """A group inside; raises MisfitError if there is none."""
        found = self
        for name in names:
            inside = found._entries.get(name)
            if not isinstance(inside, Group):
                raise MisfitError(f"it has no group {found._path}/{name}")
            found = inside
        return found

    def numbered(self, name: str) -> list["Group"]:
        """The groups `name`, `name_1`, `name_2` inside, in order."""
        found = {}
        for key, entry in self._entries.items():
            match = re.fullmatch(rf"{name}(?:_(\d{{1,6}}))?", key)
            if match and isinstance(entry, Group) and len(entry.names):
                found[int(match[1] or 0)] = entry
        return [found[number] for number in sorted(found)]

    def array(self, where: str, name: str) -> Array:
        """An array inside; raises MisfitError if there is none."""
        found = self._entries.get(name)
        if not isinstance(found, np.ndarray):
            raise MisfitError(f"{where}: there is no array {self._path}/{name}")
        return found


def read(data: bytes) -> Group:
    """The groups and the arrays of floats in a file; raises MisfitError if it is no whole one."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _group(h5py, file, "", _Room(10 * len(data)))
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError and others
        raise MisfitError(f"it is no whole HDF5 file: {str(error).partition(chr(10))[0]}") from None


class _Room:
    """What may still be read: a group may contain itself, and a small file claim a large array."""

    def __init__(self, size: int) -> None:
        self._objects, self._bytes = 20_000, size

    def take(self, size: int) -> None:
        """Raise ValueError where an object of this size is too much."""
        self._objects -= 1
        self._bytes -= size
        if self._objects < 0 or self._bytes < 0:
            raise ValueError("it has more in it than any model of its size")


def _group(h5py: Any, group: Any, path: str, room: _Room) -> Group:
    entries: dict[str, Any] = {}
    for name in group:
        room.take(0)
        if path.count("/") > 20:
            raise ValueError("its groups go deeper than those of any model")
        if path + name == "optimizer":
            continue  # which has more than twice what the model has
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue  # which would lead out of the file
        entry = group[name]
        if isinstance(entry, h5py.Group):
            entries[name] = _group(h5py, entry, f"{path}/{name}", room)
        elif isinstance(entry, h5py.Dataset) and entry.dtype.kind == "f":
            entries[name] = _array(entry, room)
    return Group(path, entries)


def _array(entry: Any, room: _Room) -> Array:
    if entry.shape is None or entry.is_virtual or entry.external is not None:
        raise ValueError(f"{entry.name} is nothing that the file itself holds")
    room.take(entry.size * max(4, entry.dtype.itemsize))
    wide = entry.dtype.itemsize > 4
    found: Array = np.asarray(entry[()], np.float64 if wide else np.float32)
    return found
