"""How long the rows of a PackedSequence are."""

from typing import Any

import numpy as np

from fastrnn_kernels.rows import Rows


def rows_of(data: Any, batch_sizes: Any) -> Rows:
    """The rows of a PackedSequence; RuntimeError if it is none that torch would have made."""
    sizes = batch_sizes.numpy()
    falling = (
        sizes.ndim == 1 and sizes.size > 0 and sizes[-1] > 0 and not (np.diff(sizes) > 0).any()
    )
    if not falling or sizes.sum() != len(data):
        raise RuntimeError(
            f"PackedSequence has {len(data)} steps and batch_sizes {sizes.tolist()}, wanted "
            "sizes of at least 1 that do not grow and sum up to the steps"
        )
    T, B = len(sizes), int(sizes[0])
    # Rows are sorted: row b runs for as many steps as more than b rows do.
    return Rows(T, B, np.searchsorted(-sizes, -np.arange(B)))
