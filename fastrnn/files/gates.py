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


def places(name: str, cell: Any) -> tuple[int, ...]:
    """Where each gate of a cell stands in a format."""
    return _PLACES[name][len(cell.gates)]


def from_format(name: str, rows: Any, gates: int, axis: int = 0) -> Array:
    """Rows (G * H, ...) of a format in our order; those given where that is the same.

    axis: that of the gates, where it is another than the first.
    """
    return _ordered(rows, _PLACES[name][gates], axis)


def to_format(name: str, rows: Any, gates: int, axis: int = 0) -> Array:
    """Rows of ours in a format's order, as `from_format`."""
    places = _PLACES[name][gates]
    return _ordered(rows, tuple(places.index(place) for place in range(gates)), axis)


def _ordered(rows: Any, places: tuple[int, ...], axis: int) -> Array:
    given = np.asarray(rows)
    if places == tuple(range(len(places))):
        return given
    parts = np.split(given, len(places), axis)
    return np.concatenate([parts[place] for place in places], axis)
