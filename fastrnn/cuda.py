"""fastrnn's equations as device functions, for `@numba.cuda.jit` kernels of your own.

    from numba import cuda
    import fastrnn.cuda

    @cuda.jit
    def step(sums, c, h):                                # sums (4, H), c and h (H,)
        u = cuda.grid(1)
        if u < h.size:
            gates = (sums[0, u], sums[1, u], sums[2, u], sums[3, u])
            h[u], c[u] = fastrnn.cuda.lstm(gates, (h[u], c[u]))

`exp`, `sigmoid`, `tanh` and `relu` take and give one number, float32 or float64, whose type
stays. The others are one step of one unit: they take the gates' pre-activations,
W x + b_ih + R h + b_hh each, and the old states, with a cell's parameters per unit behind them, as
tuples, and give the new states:

    rnn_tanh((a,), (h,)), rnn_relu((a,), (h,))   (h,)
    lstm((i, f, g, o), (h, c))                   (h, c)
    gru((n_x, r, z, n_h), (h,))                  (h,); n in two: W x + b_ih, and R h + b_hh
    gru_reset_before((r, z, n), (h,))            (h,); R of n has multiplied, in place of h,
    reset_state((r, z), (h,))                    this one's number of each unit

The fused kernels of layers with device="cuda" are made of the same functions. Needs numba-cuda,
and on Numba's simulator nothing else; not imported by `import fastrnn`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import cuda

import fastrnn_kernels.cuda  # noqa: F401  (registers CUDA's forms of the functions)
from fastrnn_kernels.cells import functions
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.registry import CELLS, cell_of

#: Steps stand here under the names of their cells.
__all__ = ["exp", "relu", "reset_state", "sigmoid", "tanh"]
__all__ += [entry.cell.name for entry in CELLS.values()]


def _of_number(function: Callable[..., Any]) -> Any:
    return cuda.jit(device=True)(lambda x: function(x))


@cache
def _step(cell: Cell) -> Any:
    equations = cuda.jit(device=True, inline="always")(cell.forward)

    @cuda.jit(device=True)
    def step(sums, states):  # type: ignore[no-untyped-def]
        new, _ = equations(sums, states)
        return new

    return step


exp = _of_number(functions.exp)
sigmoid = _of_number(functions.sigmoid)
tanh = _of_number(functions.tanh)
relu = _of_number(functions.relu)

reset_state = cuda.jit(device=True)(cell_of("GRU", reset_after=False).inner)


def __getattr__(name: str) -> Any:
    for entry in CELLS.values():
        if entry.cell.name == name:
            return _step(entry.cell)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
