"""Whether kernels can run on the GPU that is there."""

import numpy as np
from numba import cuda

from fastrnn_kernels.cuda.launch.arrays import xp

#: Compute capability that kernels are compiled for at least.
LEAST_CAPABILITY = (7, 5)


def trial() -> str:
    """Use the GPU for a moment; returns why kernels cannot run on it, empty if they can."""
    found = xp.asnumpy(xp.asarray(np.ones(1)))
    major, minor = cuda.get_current_device().compute_capability
    if (major, minor) < LEAST_CAPABILITY:
        least = ".".join(map(str, LEAST_CAPABILITY))
        return f"its compute capability is {major}.{minor}, and kernels need {least}"
    return "" if found[0] == 1 else "it gives back other numbers than it was given"
