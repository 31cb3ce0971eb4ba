"""What runs layers on the GPU, under the names of every device; needs CuPy."""

from fastrnn_kernels.cuda.choice import keep, only, route
from fastrnn_kernels.cuda.data.memory import check_backward, check_forward, room, tape_bytes
from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import empty, give, take, wait, xp
from fastrnn_kernels.cuda.sequence import (
    Backward,
    Forward,
    finish,
    run,
    scratch_bytes,
    start_backward,
    start_forward,
)
from fastrnn_kernels.gradients import Gradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape

#: The device, as fastrnn calls it.
NAME = "cuda"
ON_HOST = False
#: Types to compute in that keep no tape.
INFERENCE: tuple[str, ...] = ()

__all__ = [
    "INFERENCE",
    "NAME",
    "ON_HOST",
    "Backward",
    "Forward",
    "Gradients",
    "Rows",
    "Tape",
    "Weights",
    "check_backward",
    "check_forward",
    "empty",
    "finish",
    "give",
    "keep",
    "only",
    "room",
    "route",
    "run",
    "scratch_bytes",
    "start_backward",
    "start_forward",
    "take",
    "tape_bytes",
    "wait",
    "xp",
]
