"""HDF5 groups and arrays in them, by h5py, read without trusting what they say of their sizes."""

import io
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn_kernels import handlers

#: The attributes that are read, of the file itself and of groups, and what a character takes.
_TEXTS = (re.compile(r"model_config|layer_names\d{0,4}"), re.compile("name"))
_CHARACTER = 4
#: What Python and HDF5 take for a group or an array.
_OBJECT = 3_000


class Group:
    """A group of a file: names, and what stands under them, groups, arrays, or others' types."""

    def __init__(
        self, path: str, entries: dict[str, Any], texts: Mapping[str, Any] | None = None
    ) -> None:
        self._path, self._entries, self.texts = path, entries, dict(texts or {})
        self._taken: set[str] = set()

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

    def has_arrays(self) -> bool:
        """Whether there are arrays inside, also in groups in it."""
        return any(
            entry.has_arrays() if isinstance(entry, Group) else isinstance(entry, np.ndarray)
            for entry in self._entries.values()
        )

    def arrays(self, path: str = "") -> dict[str, Array]:
        """The arrays inside, also those of groups in it, by their paths; they count as taken."""
        found: dict[str, Array] = {}
        for name, entry in self._entries.items():
            if isinstance(entry, Group):
                found |= entry.arrays(f"{path}{name}/")
            elif isinstance(entry, np.ndarray):
                self._taken.add(name)
                found[f"{path}{name}"] = entry
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
        self._taken.add(name)
        return found

    def left(self) -> Iterator[str]:
        """The groups, by path, with arrays that nobody has taken; those of seeds do not count."""
        if any(
            not isinstance(entry, Group) and name not in self._taken
            for name, entry in self._entries.items()
        ):
            yield self._path or "/"
        for name, entry in self._entries.items():
            if isinstance(entry, Group) and not name.startswith("seed_generator"):
                yield from entry.left()

    def check_all_taken(self) -> None:
        """Raise MisfitError that names every group with arrays that nobody has taken."""
        left = list(self.left())
        if left:
            raise MisfitError(
                f"it has weights in {', '.join(left[:20])}{', ...' * (len(left) > 20)}, which no "
                "layer of fastrnn takes"
            )


def read(data: bytes, budget: Budget) -> Group:
    """The groups and the arrays of floats in a file; raises MisfitError if it is no whole one."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _group(h5py, file, "", budget)
    except MisfitError:
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError and others
        handlers.pass_on(error)
        told = str(error).partition(chr(10))[0]
        raise MisfitError(f"it is no whole HDF5 file: {told}") from error


def _group(h5py: Any, group: Any, path: str, budget: Budget) -> Group:
    entries: dict[str, Any] = {}
    for name in group:
        budget.take(_OBJECT, f"{path}/{name}")
        if path.count("/") > 20:
            raise MisfitError("its groups go deeper than those of any model")
        if path + name in ("optimizer", "optimizer_weights"):
            continue  # which has more than twice what the model has
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue  # which would lead out of the file
        entry = group[name]
        if isinstance(entry, h5py.Group):
            entries[name] = _group(h5py, entry, f"{path}/{name}", budget)
        elif isinstance(entry, h5py.Dataset):
            entries[name] = _array(entry, budget) if entry.dtype.kind == "f" else str(entry.dtype)
    return Group(path, entries, _texts(h5py, group, path, budget))


def _texts(h5py: Any, group: Any, path: str, budget: Budget) -> dict[str, Any]:
    """The texts, and rows of them, that Keras writes as attributes, by name."""
    found: dict[str, Any] = {}
    names = [name for name in group.attrs if _TEXTS[bool(path)].fullmatch(name)]
    if "model_config" in names:  # which has the names of layers, too
        names = ["model_config"]
    for name in names:
        opened = h5py.h5a.open(group.id, name.encode())
        fixed = opened.dtype.kind == "S"
        if not fixed and h5py.check_string_dtype(opened.dtype) is None:
            continue
        many = math.prod(opened.shape)
        # Texts of any length lie elsewhere in the file, and each may be all of it.
        budget.take(opened.get_storage_size() if fixed else many * budget.size, name)
        value = np.asarray(group.attrs[name]).ravel().tolist()
        texts = [one.decode(errors="replace") if isinstance(one, bytes) else one for one in value]
        found[name] = texts if opened.shape else texts[0]
        if not fixed:
            budget.give(many * budget.size - sum(map(len, texts)) * _CHARACTER)
    return found


def _array(entry: Any, budget: Budget) -> Array:
    if entry.shape is None or entry.is_virtual or entry.external is not None:
        raise MisfitError(f"{entry.name} is nothing that the file itself holds")
    # What a filter makes of a chunk has no bound that HDF5 would keep, whatever the sizes say.
    if entry.id.get_create_plist().get_nfilters():
        raise MisfitError(
            f"{entry.name} is compressed ({entry.compression or 'by filters'}), wanted plain "
            "arrays, which h5repack -f NONE makes"
        )
    wide = entry.dtype.itemsize > 4
    budget.take(entry.size * max(4, entry.dtype.itemsize) * 2, entry.name)
    if entry.chunks is not None:  # of which HDF5 takes a whole one to read a value
        budget.take(math.prod(entry.chunks) * entry.dtype.itemsize, f"a chunk of {entry.name}")
    found: Array = np.asarray(entry[()], np.float64 if wide else np.float32)
    return found
