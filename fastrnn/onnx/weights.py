"""The weights of a node: checked, in torch's order of gates, and packed once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn.adapting import Kept
from fastrnn.arrays import Array
from fastrnn.files.gates import from_format
from fastrnn.onnx.attributes import Node
from fastrnn_kernels.cpu import device as cpu


def shaped(where: str, name: str, array: Array, wanted: tuple[int | str, ...]) -> Array:
    """An array of a shape, whose letters stand for any size; raises ValueError that names it."""
    fits = array.ndim == len(wanted) and all(
        isinstance(size, str) or size == got for size, got in zip(wanted, array.shape, strict=True)
    )
    if not fits:
        text = ", ".join(map(str, wanted))
        raise ValueError(f"{where}: input {name!r} has shape {array.shape}, wanted ({text})")
    return array


def check_weights(node: Node, w: Array, r: Array, b: Array | None) -> tuple[int, int]:
    """I and H of a node's weights; raises ValueError for a shape that does not fit."""
    D, G = len(node.reverse), node.gates
    shaped(node.where, "R", r, (D, f"{G} H", "H"))
    H = r.shape[2] if node.hidden_size is None else node.hidden_size
    shaped(node.where, "R", r, (D, G * H, H))
    shaped(node.where, "W", w, (D, G * H, "I"))
    if b is not None:
        shaped(node.where, "B", b, (D, 2 * G * H))
    if not H or not w.shape[2]:
        raise ValueError(f"{node.where}: its weights have I={w.shape[2]} and H={H}, wanted some")
    return int(w.shape[2]), int(H)


def in_torch_order(node: Node, array: Array, dtype: Any) -> Array:
    """Rows (G * H, ...) of one direction, in torch's order of gates."""
    return np.ascontiguousarray(from_format("onnx", array, node.gates), dtype)


class Packed:
    """The kernels' weights of the arrays that a node was last given.

    A model may compute its weights, and a caller may write to theirs.
    """

    def __init__(self) -> None:
        self._kept: Kept[list[cpu.Weights]] = Kept()

    def weights(self, node: Node, dtype: Any, arrays: Sequence[Array | None]) -> list[cpu.Weights]:
        """Of each direction, of the checked arrays W, R, B and P."""
        pairs = zip("WRBP", arrays, strict=True)
        given = {name: array for name, array in pairs if array is not None}
        return self._kept.of(
            (node, np.dtype(dtype), tuple(given)),
            lambda copies: copies.equal([*given.values()]),
            lambda: [*given.values()],
            lambda copies: [
                _of_direction(node, d, dtype, dict(zip(given, copies, strict=True)))
                for d in range(len(node.reverse))
            ],
        )


def _of_direction(node: Node, d: int, dtype: Any, arrays: Mapping[str, Array]) -> cpu.Weights:
    cell = node.cell(d, "P" in arrays)

    def rows(array: Array) -> Array:
        ordered = in_torch_order(node, array, dtype)
        if node.gates == len(cell.gates):
            return ordered
        i, _, *others = np.split(ordered, node.gates)  # where gates are coupled nothing reads f's
        return np.concatenate([i, *others])

    w, r = (rows(arrays[name][d]) for name in "WR")
    b_ih = b_hh = units = None
    if "B" in arrays:
        b_ih, b_hh = map(rows, np.split(arrays["B"][d], 2))
    if "P" in arrays:
        by_name = peepholes(arrays["P"][d])
        units = np.stack([by_name[name] for name in cell.per_unit]).astype(dtype)
    return cpu.Weights(cell, w, r, b_ih, b_hh, units=units)


def peepholes(P: Array) -> dict[str, Array]:
    """P (3 H,) of one direction by name."""
    return dict(zip(("p_i", "p_o", "p_f"), np.split(P, 3), strict=True))


def dequantized(where: str, name: str, q: Array, scale: Array, zero: Array | None) -> Array:
    """Integer weights (D, I, G * H) of DynamicQuantizeLSTM as those of LSTM, (D, G * H, I).

    scale, zero: (D,), or (D, G * H), one to a column. Raises ValueError for what does not fit.
    """
    if q.dtype.kind not in "iu" or q.ndim != 3:
        raise ValueError(
            f"{where}: input {name!r} is {q.dtype} {q.shape}, wanted (D, I, 4 H) of 8 bits"
        )
    D, _, rows = q.shape
    parts = []
    for word, given in (("scale", scale), ("zero_point", zero)):
        values = np.zeros(D) if given is None else np.asarray(given)
        if values.shape not in ((D,), (D, rows), *([()] if D == 1 else [])):
            raise ValueError(
                f"{where}: input '{name}_{word}' has shape {values.shape}, wanted ({D},) or "
                f"({D}, {rows})"
            )
        parts.append(values.astype(np.float32).reshape(D, 1, -1))
    found = (q.astype(np.float32) - parts[1]) * parts[0]
    return np.ascontiguousarray(found.swapaxes(1, 2))
