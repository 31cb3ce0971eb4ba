"""Sets of sequences on disk, of which a few at a time are read: .npy, .parquet, folders of .wav."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.tools.wav import WavError, WavReader
from fastrnn_kernels import handlers


class Inputs(ABC):
    """Sequences by their numbers.

    many: how many there are. names: what the rows of the output are called, if not by numbers.
    """

    many: int
    names: Sequence[str] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def read(self, first: int, last: int) -> list[Array]:
        """The sequences from `first` up to `last`; ValueError that names the file for others."""

    def fingerprint(self) -> list[Any]:
        """What tells this set from what its file was, or will be, at another time."""
        told = os.stat(self.path)
        return [str(self.path.resolve()), self.many, told.st_size, told.st_mtime_ns]


class Npy(Inputs):
    """An array (N, T, I), or (N, T) of tokens or of one value a step."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            handlers.pass_on(error)
            raise ValueError(f"file {str(path)!r} is no .npy file: {error}") from None
        if self._array.ndim not in (2, 3):
            raise ValueError(
                f"file {str(path)!r} has an array of shape {self._array.shape}, wanted (N, T, I) "
                "or (N, T)"
            )
        self.many = len(self._array)

    def read(self, first: int, last: int) -> list[Array]:
        """The sequences, copied."""
        return list(np.array(self._array[first:last]))


class Parquet(Inputs):
    """A column of lists: of numbers, (T,), or of lists of them, (T, I)."""

    def __init__(self, path: Path, column: str | None) -> None:
        super().__init__(path)
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise ImportError(f"file {str(path)!r} wants pyarrow: pip install pyarrow") from error
        try:
            self._file = parquet.ParquetFile(path)
        except ArrowException as error:
            handlers.pass_on(error)
            raise ValueError(f"file {str(path)!r} is no Parquet file: {error}") from None
        columns = self._file.schema_arrow.names
        if column is None and len(columns) == 1:
            column = columns[0]
        if column not in columns:
            raise ValueError(
                f"file {str(path)!r} has the columns {', '.join(columns)}: wanted the name of the "
                f"one with the sequences, got {column!r}"
            )
        self.column = column
        told = self._file.metadata
        self.many = told.num_rows
        groups = [told.row_group(k).num_rows for k in range(told.num_row_groups)]
        self._ends = np.cumsum(groups)
        self._group: tuple[int, Any] = (-1, None)

    def read(self, first: int, last: int) -> list[Array]:
        """The sequences of some rows; of the file, a group of rows is in memory at a time."""
        found: list[Array] = []
        while first < last:
            group = int(np.searchsorted(self._ends, first, side="right"))
            if self._group[0] != group:
                self._group = group, self._file.read_row_group(group, [self.column]).column(0)
            begin = int(self._ends[group - 1]) if group else 0
            end = min(last, int(self._ends[group]))
            for row, one in enumerate(self._group[1].slice(first - begin, end - first), first):
                value = one.as_py()
                try:
                    array = np.array(value)
                except ValueError:
                    array = np.array(None)
                if value is None or array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
                    raise ValueError(
                        f"row {row} of {str(self.path)!r} is no sequence: {str(value)[:40]!r}"
                    )
                found.append(array)
            first = end
        return found

    def fingerprint(self) -> list[Any]:
        """With the column."""
        return [*super().fingerprint(), self.column]


class Wavs(Inputs):
    """The .wav files of a folder, in the order of their names; full scale is 1."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._files = sorted(one for one in path.iterdir() if one.suffix.lower() == ".wav")
        if not self._files:
            raise ValueError(f"folder {str(path)!r} has no .wav files")
        self.many, self.names = len(self._files), [one.name for one in self._files]

    def read(self, first: int, last: int) -> list[Array]:
        """The samples (T, channels) of some files."""
        found = []
        for path in self._files[first:last]:
            try:
                with open(path, "rb") as file:
                    reader = WavReader(file)
                    found.append(reader.read(reader.steps).astype(np.float32))
            except WavError as error:
                raise ValueError(f"file {str(path)!r}: {error}") from None
        return found

    def fingerprint(self) -> list[Any]:
        """Of each file."""
        told = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in self._files]
        return [str(self.path.resolve()), told]


def inputs_of(path: Path, column: str | None) -> Inputs:
    """What a path names; OSError or ValueError for what cannot be read."""
    if path.is_dir():
        found: Inputs = Wavs(path)
    elif path.suffix.lower() == ".npy":
        found = Npy(path)
    elif path.suffix.lower() in (".parquet", ".pq"):
        return Parquet(path, column)
    else:
        raise ValueError(f"{str(path)!r} is no .npy or .parquet file, and no folder of .wav files")
    if column is not None:
        raise ValueError(f"column is {column!r}, and {str(path)!r} has none: it is for .parquet")
    return found
