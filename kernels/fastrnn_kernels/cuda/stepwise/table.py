"""A pass's arrays, as kernels of a recorded graph find them: by a table in the GPU's memory.

A graph keeps the arguments that it was recorded with. So its kernels are given a table that
stays where it is, and a launch before each replay writes the addresses of the arrays at hand
into it. A kernel takes the table once for each type: its words, and addresses of values (V), of
integers (N) and of masks (M). On the simulator it is a list of arrays.
"""

from typing import Any

from numba import config

from fastrnn_kernels.cuda.launch.arrays import xp
from fastrnn_kernels.cuda.launch.launch import flat_view, launch
from fastrnn_kernels.cuda.stepwise.fill import WORDS, fill_kernel


class Table:
    """The words, and how they are written."""

    def __init__(self) -> None:
        self.words: Any = [0] * WORDS if config.ENABLE_CUDASIM else xp.empty(WORDS, "int64")

    def fill(self, values: dict[int, Any]) -> None:
        """Write arrays, None or integers by their places, on the caller's stream."""
        words = [values.get(k) for k in range(WORDS)]
        if config.ENABLE_CUDASIM:
            self.words[:] = map(flat_view, words)
        else:
            numbers = [
                one if type(one) is int else 0 if one is None else one.data.ptr for one in words
            ]
            launch(fill_kernel(), 1, self.words, *numbers)
