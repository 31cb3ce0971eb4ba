"""The order of gates among the rows of weights, in other formats than torch's, which is ours."""

from typing import Any

import numpy as np

from fastrnn.arrays import Array

#: Of each format and number of gates, the place where a gate of ours stands there: of an LSTM i,
#: f, g, o, of a GRU r, z, n.
_PLACES: dict[str, dict[int, tuple[int, ...]]] = {
    "keras": {1: (0,), 3: (1, 0, 2), 4: (0, 1, 2, 3)},  # z, r, h; i, f, c, o
    "onnx": {1: (0,), 3: (1, 0, 2), 4: (0, 2, 3, 1)},  # z, r, h; i, o, f, c
    "haste": {1: (0,), 3: (1, 0, 2), 4: (0, 2, 1, 3)},  # z, r, h; i, g, f, o
}


def from_format(name: str, rows: Any, gates: int) -> Array:
    """Rows (G * H, ...) of a format in our order, C-contiguous."""
    parts = np.split(np.asarray(rows), gates)
    return np.concatenate([parts[place] for place in _PLACES[name][gates]])


def to_format(name: str, rows: Any, gates: int) -> Array:
    """Rows (G * H, ...) of ours in a format's order, C-contiguous."""
    parts = np.split(np.asarray(rows), gates)
    places = _PLACES[name][gates]
    return np.concatenate([parts[places.index(place)] for place in range(gates)])
