"""What runs layers on the GPU, under the names that the CPU's kernels have; needs CuPy."""

from fastrnn_kernels.cuda.arrays import empty, give, take, wait, xp
from fastrnn_kernels.cuda.sequence import (
    Backward,
    Forward,
    run,
    scratch_bytes,
    start_backward,
    start_forward,
)
from fastrnn_kernels.cuda.tape import Tape
from fastrnn_kernels.cuda.weights import Weights
from fastrnn_kernels.gradients import Gradients
from fastrnn_kernels.rows import Rows

__all__ = [
    "Backward",
    "Forward",
    "Gradients",
    "Rows",
    "Tape",
    "Weights",
    "empty",
    "give",
    "run",
    "scratch_bytes",
    "start_backward",
    "start_forward",
    "take",
    "wait",
    "xp",
]
