"""What runs layers on the CPU, under the names of every device (`fastrnn_kernels/device.py`)."""

from collections.abc import Callable
from typing import Any

import numpy as xp

from fastrnn_kernels.cpu.arrays.memory import empty, waiting_bytes
from fastrnn_kernels.cpu.arrays.memory import release as release_memory
from fastrnn_kernels.cpu.arrays.take import give, take
from fastrnn_kernels.cpu.product.weights import Weights
from fastrnn_kernels.cpu.sequence.checkpoints import (
    BackwardSegments,
    Checkpoints,
    checkpoint_bytes,
    forward_segments,
    new_checkpoints,
)
from fastrnn_kernels.cpu.sequence.plan import route, scratch_bytes
from fastrnn_kernels.cpu.sequence.start import (
    Backward,
    Forward,
    finish,
    mask_panels,
    start_backward,
    start_forward,
    tape_bytes,
)
from fastrnn_kernels.cpu.stream.functions import Stage
from fastrnn_kernels.cpu.stream.linear_stage import LinearStage
from fastrnn_kernels.cpu.stream.program import Program, pack_linear, stage_of
from fastrnn_kernels.cpu.threads.board import prepare as prepare_threads
from fastrnn_kernels.cpu.threads.pool import (
    available_cpus,
    board_address,
    get_num_threads,
    run,
    set_num_threads,
)
from fastrnn_kernels.gradients import Gradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape

#: The device, as fastrnn calls it.
NAME = "cpu"
ON_HOST = True
#: Types to compute in that keep no tape.
INFERENCE: tuple[str, ...] = ("bfloat16",)


def wait() -> None:
    """Nothing is left to be done when a call comes back."""


def room() -> tuple[int, int] | None:
    """Memory is the system's to give: nobody is asked before."""
    return None


def check_forward(
    weights: Any, D: int, T: int, B: int, taping: bool, copied: int, what: Callable[[], str]
) -> None:
    """NumPy raises MemoryError where there is none."""


def check_backward(tapes: Any, D: int, what: Callable[[], str]) -> None:
    """NumPy raises MemoryError where there is none."""


__all__ = [
    "INFERENCE",
    "NAME",
    "ON_HOST",
    "Backward",
    "BackwardSegments",
    "Checkpoints",
    "Forward",
    "Gradients",
    "LinearStage",
    "Program",
    "Rows",
    "Stage",
    "Tape",
    "Weights",
    "available_cpus",
    "board_address",
    "check_backward",
    "check_forward",
    "checkpoint_bytes",
    "empty",
    "finish",
    "forward_segments",
    "get_num_threads",
    "give",
    "mask_panels",
    "new_checkpoints",
    "pack_linear",
    "prepare_threads",
    "release_memory",
    "room",
    "route",
    "run",
    "scratch_bytes",
    "set_num_threads",
    "stage_of",
    "start_backward",
    "start_forward",
    "take",
    "tape_bytes",
    "wait",
    "waiting_bytes",
    "xp",
]
