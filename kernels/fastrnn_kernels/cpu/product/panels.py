"""How wide panels are.

A panel of the forward pass holds, for U units, the columns of all gates; other panels hold VECTORS
vectors of columns.
"""

from fastrnn_kernels.cells.cell import Cell

#: Vectors of columns in a panel that belongs to no cell: four feed the multipliers of
#: every host with as many rows as its registers hold.
VECTORS = 4


def vectors_per_gate(cell: Cell) -> int:
    """Vectors of units in a forward panel: enough that all gates fill about four."""
    return max(1, VECTORS // cell.G)


def padded(size: int, multiple: int) -> int:
    """The size rounded up to a multiple."""
    return (size + multiple - 1) // multiple * multiple
