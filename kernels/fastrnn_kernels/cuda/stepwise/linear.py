"""What stands behind a linear layer's product."""

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from fastrnn_kernels.cells.activations import PLAIN
from fastrnn_kernels.cuda.isa.values import device
from fastrnn_kernels.cuda.launch.kernel import Kernel


@cache
def activation_kernel(activation: str | None, dtype: np.dtype[Any]) -> Kernel:
    """y (many,) = φ(y + bias), of rows as wide as the bias."""
    function = device(lambda a: a) if activation is None else PLAIN[activation]

    def activate(y, bias, many, width):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i < many:
            y[i] = function(y[i] + bias[i % width])

    return Kernel(activate, dtype, "vvii")
