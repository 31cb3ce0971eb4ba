"""Run a model over a set of sequences, chunk by chunk."""

import hashlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.files.paths import path_of
from fastrnn.models.embedding import Embedding
from fastrnn.models.layer import Layer
from fastrnn.models.pool import Pool
from fastrnn.models.sequential import Sequential
from fastrnn.score.inputs import Inputs, inputs_of
from fastrnn.score.outputs import SUFFIXES, Parts, write
from fastrnn.train.data import padded

#: Batches of a chunk: what is lost at most when the process is killed.
_BATCHES = 16


def score(
    model: Any,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    column: str | None = None,
    which: str = "all",
    batch_size: int = 64,
    overwrite: bool = False,
    progress: bool = False,
) -> int:
    """Run a model over all sequences of a set, and write what it gives.

    model: a layer or a Sequential. data: a .npy file (N, T, I) or (N, T), a .parquet file with a
        column of lists, or a folder of .wav files. Floats are converted to the model's type;
        sequences may be of different lengths.
    output: a .npy file, where all results are of one shape, or a .parquet file with a row for each
        sequence.
    column: of a .parquet file, the one with the sequences.
    which: "all" outputs of each sequence, or the "last" alone; a model with a Pool has one.
    batch_size: sequences that are run together. Some batches at a time are in memory.
    overwrite: replace an output that is there, and forget parts of another run.
    progress: show a bar, if this is a terminal.

    Results are kept part by part in a folder beside the output, OUTPUT.parts, until all are there.
    A run that was stopped, however that was, goes on behind the last whole part: no row is lost or
    there twice.

    Returns the number of sequences. Raises FileExistsError for an output that is there, ValueError
    for data that do not fit the model, with the number of the sequence, OSError for what the system
    refuses; what is done is kept then.
    """
    if not isinstance(model, Layer | Sequential):
        raise TypeError(f"model is a {type(model).__name__}, wanted a layer or a Sequential")
    source, target = path_of(data), path_of(output)
    check.choice("which", which, ("all", "last"))
    size = check.size("batch_size", batch_size) * _BATCHES
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"output {str(target)!r} is none of {', '.join(SUFFIXES)}")
    if target.exists() and not overwrite:
        raise FileExistsError(f"output {str(target)!r} is there already: overwrite it")
    inputs = inputs_of(source, column)
    if not inputs.many:
        raise ValueError(f"{str(source)!r} has no sequences")
    run = {"model": _digest(model), "data": inputs.fingerprint(), "which": which, "chunk": size}
    parts = Parts(target, run, overwrite)
    chunks = range(-(-inputs.many // size))
    with _Bar(progress, inputs.many) as advance:
        for chunk in chunks:
            first, last = chunk * size, min(inputs.many, (chunk + 1) * size)
            if not parts.has(chunk):
                parts.put(chunk, _outputs(model, inputs, first, last, which, batch_size))
            advance(last - first)
    write(target, (parts.rows(chunk) for chunk in chunks), inputs.many, inputs.names)
    parts.remove()
    return inputs.many


def _digest(model: Any) -> str:
    digest = hashlib.sha256(model.description().encode())
    for name, value in model.parameters.items():
        digest.update(name.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _outputs(
    model: Any, inputs: Inputs, first: int, last: int, which: str, batch_size: int
) -> list[Array]:
    """The results of some sequences; those of like length are run together."""
    sequences = [
        _checked(model, one, number, str(inputs.path))
        for number, one in enumerate(inputs.read(first, last), first)
    ]
    found: list[Array] = [np.empty(0)] * len(sequences)
    order = np.argsort([len(one) for one in sequences], kind="stable")
    for begin in range(0, len(order), batch_size):
        some = order[begin : begin + batch_size]
        for k, row in zip(some, _batch(model, [sequences[k] for k in some], which), strict=True):
            found[k] = row
    return found


def _modules(model: Any) -> Sequence[Any]:
    return model.modules if isinstance(model, Sequential) else (model,)


def _checked(model: Any, sequence: Array, number: int, path: str) -> Array:
    where = f"sequence {number} of {path!r}"
    first = _modules(model)[0]
    if not len(sequence):
        raise ValueError(f"{where} has no steps")
    if isinstance(first, Embedding):
        if sequence.ndim != 1 or sequence.dtype.kind not in "iu":
            raise ValueError(f"{where} is no sequence of tokens: wanted integers (T,)")
        most = first.num_embeddings - 1
        if sequence.min() < 0 or sequence.max() > most:
            raise ValueError(f"{where} holds tokens outside of 0 to {most}")
        return sequence
    if sequence.dtype.kind not in "fiu":
        raise ValueError(f"{where} has dtype {sequence.dtype}, wanted numbers")
    floats = sequence.astype(model.dtype)
    if floats.ndim == 1:
        floats = floats[:, None]
    width = first.input_size if isinstance(first, Layer) else getattr(first, "in_features", None)
    if width is not None and floats.shape[1] != width:
        raise ValueError(f"{where} has {floats.shape[1]} values a step, the model takes {width}")
    if not np.isfinite(floats).all():
        raise ValueError(f"{where} holds NaN or infinity")
    return floats


def _batch(model: Any, sequences: Sequence[Array], which: str) -> list[Array]:
    x, lengths = padded(sequences)
    batch_first = any(m.batch_first for m in _modules(model) if isinstance(m, Layer))
    given = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
    y = model(given, lengths=lengths)[0]
    if any(isinstance(module, Pool) for module in _modules(model)):
        return list(y)
    y = y.swapaxes(0, 1) if not batch_first else y
    each = [y[b, : len(one)] for b, one in enumerate(sequences)]
    return [one[-1] for one in each] if which == "last" else each


class _Bar:
    """A bar on a terminal, which is as before when it ends; nothing if not shown."""

    def __init__(self, shown: bool, many: int) -> None:
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True))
            self._task = self._bar.add_task("sequences", total=many)

    def __enter__(self) -> Any:
        if self._bar is None:
            return lambda many: None
        self._bar.start()
        return lambda many: self._bar.advance(self._task, many)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
