"""Results on disk: parts as they come, then one file of all of them."""

import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.files import write_whole

SUFFIXES = (".npy", ".parquet")


class Parts:
    """A folder beside the output: of each chunk a file, which appears whole or not at all.

    run: what tells one run from others; parts of another are not taken up.
    """

    def __init__(self, output: Path, run: dict[str, Any], overwrite: bool) -> None:
        self._folder = output.with_name(f"{output.name}.parts")
        told = json.dumps(run, sort_keys=True)
        manifest = self._folder / "run.json"
        if overwrite and self._folder.exists():
            shutil.rmtree(self._folder)
        if self._folder.exists():
            try:
                found = manifest.read_text(encoding="utf-8")
            except OSError as error:
                handlers.pass_on(error)
                found = ""
            if found != told:
                raise ValueError(
                    f"{str(self._folder)!r} has parts of another model, of other data, or of other "
                    "options: delete it, or overwrite"
                )
        else:
            self._folder.mkdir()
            write_whole(manifest, told.encode())

    def _path(self, chunk: int) -> Path:
        return self._folder / f"{chunk:08d}.npz"

    def has(self, chunk: int) -> bool:
        """Whether a chunk is done."""
        return self._path(chunk).exists()

    def put(self, chunk: int, rows: Sequence[Array]) -> None:
        """Keep the results of a chunk."""
        data = io.BytesIO()
        shapes = np.array([one.shape for one in rows], np.int64)
        np.savez(data, shapes=shapes, values=np.concatenate([one.reshape(-1) for one in rows]))
        write_whole(self._path(chunk), data.getvalue())

    def rows(self, chunk: int) -> list[Array]:
        """The results of a chunk."""
        with np.load(self._path(chunk)) as found:
            shapes, values = found["shapes"], found["values"]
        ends = np.cumsum(shapes.prod(1))
        parts = np.split(values, ends[:-1])
        return [one.reshape(shape) for one, shape in zip(parts, shapes, strict=True)]

    def remove(self) -> None:
        """All is in the output."""
        shutil.rmtree(self._folder)


def write(output: Path, chunks: Iterator[list[Array]], many: int, names: Any) -> None:
    """Write all rows to a file, which appears whole or not at all."""
    temporary = output.with_name(f"{output.name}.new")
    try:
        if output.suffix.lower() == ".npy":
            _write_npy(temporary, chunks, many, str(output))
        else:
            _write_parquet(temporary, chunks, names)
        os.replace(temporary, output)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_npy(path: Path, chunks: Iterator[list[Array]], many: int, name: str) -> None:
    array: Any = None
    at = 0
    for rows in chunks:
        for row in rows:
            if array is None:
                array = np.lib.format.open_memmap(
                    path, mode="w+", dtype=row.dtype, shape=(many, *row.shape)
                )
            if row.shape != array.shape[1:]:
                raise ValueError(
                    f"results differ in shape, {row.shape} and {array.shape[1:]}: {name!r} cannot "
                    "hold them; wanted a .parquet file, or output 'last'"
                )
            array[at] = row
            at += 1
    array.flush()


def _write_parquet(path: Path, chunks: Iterator[list[Array]], names: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    writer, at = None, 0
    try:
        for rows in chunks:
            numbers = range(at, at + len(rows))
            told = numbers if names is None else [names[k] for k in numbers]
            table = pyarrow.table(
                {
                    "sequence" if names is None else "file": list(told),
                    "output": [row.tolist() for row in rows],
                }
            )
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            at += len(rows)
    finally:
        if writer is not None:
            writer.close()
