"""Compiling kernels ahead of their first use."""

from collections.abc import Callable, Iterable

import numpy as np

from fastrnn import check
from fastrnn.models.classes import entry_of, layer_of
from fastrnn_kernels.cells.registry import CELLS
from fastrnn_kernels.cpu import device as cpu

DTYPES = ("float32", "float64", "bfloat16")


def warmup(
    cells: Iterable[str] | None = None,
    dtypes: Iterable[str] = ("float32",),
    *,
    training: bool = True,
    done: Callable[[str, str], None] = lambda cell, dtype: None,
) -> None:
    """Compile the kernels of some cells, so that no later call has to.

    What is compiled is kept on disk: on a machine with a cache folder this is needed once,
    in any process, and not at all for what has come compiled (`fastrnn info`).

    cells: of "rnn", "rnn-relu", "lstm", "gru", "gru-reset-before", names of `fastrnn.cells`, as
        "MinGRU", and "module:Name" for one's own; all that are known if None.
    dtypes: of "float32", "float64", "bfloat16".
    training: the backward pass too; bfloat16 has none.
    done: called after each cell and dtype.

    Raises TypeError or ValueError for another cell or dtype, before anything is compiled.
    """
    chosen = list(cells or CELLS)
    for cell in chosen:
        entry_of(cell)
    types = [check.compute_type("dtypes", dtype) for dtype in dtypes]
    types = [check.choice("dtypes", dtype, DTYPES) for dtype in types]
    cpu.prepare_threads()
    for dtype in types:
        for cell in chosen:
            layer = layer_of(cell, 1, 1, dtype=dtype)
            x = np.zeros((1, 1, 1), layer.dtype)
            if training and dtype != "bfloat16":
                y, _, tape = layer.forward(x)
                layer.backward(tape, y)
            else:
                layer(x)
            done(cell, dtype)
