"""What runs layers on the GPU, under the names that the CPU's kernels have; needs CuPy."""

from fastrnn_kernels.cuda.data.memory import check_backward, check_forward, room
from fastrnn_kernels.cuda.data.tape import Tape
from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import empty, give, take, wait, xp
from fastrnn_kernels.cuda.sequence import (
    Backward,
    Forward,
    run,
    scratch_bytes,
    start_backward,
    start_forward,
)
from fastrnn_kernels.gradients import Gradients
from fastrnn_kernels.rows import Rows

#: The device, as fastrnn calls it.
NAME = "cuda"

__all__ = [
    "NAME",
    "Backward",
    "Forward",
    "Gradients",
    "Rows",
    "Tape",
    "Weights",
    "check_backward",
    "check_forward",
    "empty",
    "give",
    "room",
    "run",
    "scratch_bytes",
    "start_backward",
    "start_forward",
    "take",
    "wait",
    "xp",
]
