"""What a backward pass gives, on every device."""

from dataclasses import dataclass
from typing import Any

Array = Any  # of the device's own kind


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of one direction; of the weights in the cell's gate order."""

    x: Array
    start_h: Array
    start_rest: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    w_hr: Array | None
