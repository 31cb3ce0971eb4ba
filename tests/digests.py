"""Digests of results, bit for bit: every cell, float type, pass and stream, on small problems.

`python tests/digests.py KEY` computes them for the CPU that Numba compiles for and puts them under
KEY in `fixtures/digests.json`: "fma" for vectors of any width with fused multiply-add, "plain"
without. Whoever means to change results, rounding included, writes the file anew; who moves or
renames must not.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import cases
import fastrnn

FILE = Path(__file__).parent / "fixtures" / "digests.json"
CELLS = {**cases.CELLS, "LSTM-projected": ("LSTM", {"proj_size": 9})}


def digest(*arrays: Any) -> str:
    """A hash of the arrays' bits and shapes."""
    found = hashlib.sha256()
    for array in arrays:
        one = np.ascontiguousarray(array)
        found.update(repr((one.shape, one.dtype.str)).encode() + one.tobytes())
    return found.hexdigest()[:20]


def _flat(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def _weights(layer: Any) -> Any:
    """The layer with weights that are independent of how it draws its own."""
    rng = np.random.default_rng(7)
    values = {n: rng.uniform(-0.3, 0.3, v.shape) for n, v in sorted(layer.parameters.items())}
    layer.update(values)
    return layer


def _layer(cell: str, dtype: str, *sizes: int, **options: Any) -> Any:
    kind, own = CELLS[cell]
    return _weights(getattr(fastrnn, kind)(*sizes, dtype=dtype, device="cpu", **own, **options))


def passes(cell: str, dtype: str) -> Iterator[tuple[str, str]]:
    """Passes of a stack in both directions, ragged and reset, and of one level."""
    for name, T, B, I, H, options, ragged in (
        ("stack", 7, 5, 9, 37, {"num_layers": 2, "bidirectional": True}, True),
        ("row", 5, 1, 40, 64, {}, False),
        ("wide", 3, 17, 130, 70, {"bias": False}, False),
    ):
        layer = _layer(cell, dtype, I, H, **options)
        rng = np.random.default_rng(11)
        x = rng.standard_normal((T, B, I)).astype(layer.dtype)
        how: dict[str, Any] = {}
        if ragged:
            how = {"lengths": [T, 1, 0, 4, 6], "reset": rng.random((T, B)) < 0.2}
        y, state = layer(x, **how)
        yield f"{name} forward", digest(y, *_flat(state))
        if dtype == "bfloat16":
            continue
        y, state, tape = layer.forward(x, **how)
        found = layer.backward(tape, rng.standard_normal(y.shape).astype(layer.dtype))
        parameters = [found.parameters[n] for n in sorted(found.parameters)]
        yield f"{name} backward", digest(y, found.x, *_flat(found.state), *parameters)


def storages_of(dtype: str) -> tuple[str | None, ...]:
    """How a stream may store weights of that type; None is as they are."""
    return (None,) if dtype == "float64" else (None, "bf16", "int8")


def streams(cell: str, dtype: str, batches: Any, storages: Any) -> Iterator[tuple[str, str]]:
    """Streams of one row and of some, in these storages, step by step and in a block."""
    layer = _layer(cell, dtype, 11, 45, num_layers=2)
    for B in batches:
        x = np.random.default_rng(13).standard_normal((6, B, 11)).astype(layer.dtype)
        for storage in storages:
            stream = layer.stream(B, weights=storage)
            steps = [stream.step(one).copy() for one in x[:4]]
            yield (
                f"stream {B} {storage or 'full'}",
                digest(*steps, stream.block(x[4:]), *_flat(stream.state)),
            )


def results(cells: Any = CELLS, dtypes: Any = ("float32", "float64", "bfloat16")) -> dict[str, str]:
    """All digests, by what they are of."""
    found = {}
    for cell in cells:
        for dtype in dtypes:
            for name, value in passes(cell, dtype):
                found[f"{cell} {dtype} {name}"] = value
            if dtype != "bfloat16":
                for name, value in streams(cell, dtype, (1, 3), storages_of(dtype)):
                    found[f"{cell} {dtype} {name}"] = value
    return found


if __name__ == "__main__":
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept[sys.argv[1]] = results()
    FILE.write_text(json.dumps(kept, indent=1) + "\n")
