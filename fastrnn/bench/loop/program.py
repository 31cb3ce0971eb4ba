"""What the programs of both frameworks share, and the way to them."""

from __future__ import annotations

import importlib
from typing import Any

from fastrnn.bench.contender import Program
from fastrnn.bench.loop.data import batch
from fastrnn.bench.loop.models import Model

_MODULES = {
    "torch": "fastrnn.bench.loop.torch_program",
    "keras": "fastrnn.bench.loop.keras_program",
}


def build(model: Model, own: bool, dtype: str) -> Program:
    """A model with the layers of fastrnn (`own`), or those of its framework.

    The program's `load` takes a `data.Batch`; `rewind` gives the parameters new values, each time
    the next of a row that is the same everywhere: kernels that went on with old ones would be seen.
    """
    program: Program = importlib.import_module(_MODULES[model.framework]).build(model, own, dtype)
    return program


def inputs(model: Model, program: Any, count: int) -> list[Any]:
    """So many inputs, loaded."""
    return [program.load(batch(model, index)) for index in range(count)]
