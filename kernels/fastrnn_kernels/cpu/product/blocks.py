"""Panels of a block-diagonal R: each has those rows of h alone that its units read.

A panel's units lie in one block, or in a few that follow each other: it then has the rows of them
all, zeros where a unit does not read one. Panels are stored as deep as the deepest, so that they
lie one like the next from each other.
"""

from typing import Any, NamedTuple

import numpy as np

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.arrays.memory import Array
from fastrnn_kernels.rows import Indices


class Reach(NamedTuple):
    """What panels read of h.

    panels (., 2): of each its first row, an even one, as products may take pairs, and how many;
    depth: the most of them.
    """

    panels: Indices
    depth: int

    @staticmethod
    def of(size: int, width: int, units: int) -> "Reach":
        """Of panels of so many units, of `size` units in all, in blocks of `width`."""
        first = np.arange(0, size, units, dtype=np.int64)
        last = np.minimum(first + units, size) - 1
        from_row = first // width * width // 2 * 2
        many = (last // width + 1) * width - from_row
        return Reach(np.stack([from_row, many], axis=1), int(many.max(initial=0)))

    def elements(self, values: int) -> Indices:
        """Those of panels, counted in elements of so many values."""
        first, many = self.panels.T
        return np.stack([first // values, -(-many // values)], axis=1)


@kernel("block-gate-panels")
def _pack_gates(matrix, positions, H, U, reach, depth, out):  # type: ignore[no-untyped-def]
    width, G = matrix.shape[1], positions.size
    panels = out.reshape(-1, depth, G, U)
    out[:] = 0
    for n in range(len(panels)):
        for g in range(G):
            for u in range(min(U, H - n * U)):
                unit = n * U + u
                first = unit // width * width - reach[n, 0]
                row = matrix[positions[g] * H + unit]
                for k in range(width):
                    panels[n, first + k, g, u] = row[k]


@kernel("block-plain-panels")
def _pack_plain(matrix, positions, H, U, reach, depth, out):  # type: ignore[no-untyped-def]
    width, G = matrix.shape[1], positions.size
    panels = out.reshape(-1, G, depth, U)
    out[:] = 0
    for n in range(len(panels)):
        for g in range(G):
            for k in range(reach[n, 1]):
                unit = reach[n, 0] + k
                row, first = matrix[positions[g] * H + unit], unit // width * width - n * U
                for u in range(max(0, first), min(U, first + width)):
                    panels[n, g, k, u] = row[u - first]


def block_gate_panels(
    matrix: Array, positions: tuple[int, ...], H: int, U: int, reach: Reach, out: Array
) -> None:
    """(gates * H, width), the gates at these positions -> [panel][depth][gate][U].

    As `gate_panels`, of the units that multiply h.
    """
    _packed(_pack_gates, matrix, positions, H, U, reach, out)


def block_plain_panels(
    matrix: Array, positions: tuple[int, ...], H: int, U: int, reach: Reach, out: Array
) -> None:
    """(gates * H, width), the gates at these positions -> [panel][gate][depth][U].

    As `plain_panels`, of the columns of h.
    """
    _packed(_pack_plain, matrix, positions, H, U, reach, out)


def _packed(
    pack: Any, matrix: Array, positions: tuple[int, ...], H: int, U: int, reach: Reach, out: Array
) -> None:
    order = np.array(positions, np.int64)
    pack(np.ascontiguousarray(matrix), order, H, U, reach.panels, reach.depth, out)
