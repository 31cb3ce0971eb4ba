"""What a backward pass gives, on every device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Array = Any  # of the device's own kind


class Clip(NamedTuple):
    """How the gradient of each state is clipped that a step gives the one before; 0 is off.

    value: the most of a value. norm: the most of the norm of a row's values.
    """

    value: float = 0.0
    norm: float = 0.0


#: It stays as it is.
NO_CLIP = Clip()


@dataclass(slots=True, eq=False)  # frozen ones take longer to make
class Gradients:
    """Gradients of one direction; of the weights in the cell's gate order.

    x: None where nobody asked for it.
    """

    x: Array
    start_h: Array
    start_rest: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    w_hr: Array | None
    units: Array | None  # (Q, H) of a cell with parameters per unit
    norm_ih: Array | None = None  # where there is a norm
    norm_hh: Array | None = None


def in_gate_order(xp: Any, wanted: Sequence[str], rows: Array, gates: Sequence[str]) -> Array:
    """Rows (gates H, ...) of gates in some order -> in the wanted one, C-contiguous.

    xp: the device's module of arrays.
    """
    if tuple(gates) == wanted:
        return xp.ascontiguousarray(rows)
    H = len(rows) // len(gates)
    positions = [gates.index(gate) for gate in wanted]
    return xp.concatenate([rows[p * H : (p + 1) * H] for p in positions])
