"""The CPU's kernels: register blocks, packing, the sequence forward and backward, threads."""

import numpy as xp

from fastrnn_kernels.cpu.arrays.memory import empty, waiting_bytes
from fastrnn_kernels.cpu.arrays.memory import release as release_memory
from fastrnn_kernels.cpu.arrays.take import give, take
from fastrnn_kernels.cpu.product.weights import Weights
from fastrnn_kernels.cpu.sequence.plan import scratch_bytes
from fastrnn_kernels.cpu.sequence.start import Backward, Forward, start_backward, start_forward
from fastrnn_kernels.cpu.sequence.tape import Tape
from fastrnn_kernels.cpu.stream.linear_stage import LinearStage
from fastrnn_kernels.cpu.stream.program import Program, Stage, cell_stage, pack_linear
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

#: The device, as fastrnn calls it.
NAME = "cpu"

__all__ = [
    "NAME",
    "Backward",
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
    "cell_stage",
    "empty",
    "get_num_threads",
    "give",
    "pack_linear",
    "prepare_threads",
    "release_memory",
    "run",
    "scratch_bytes",
    "set_num_threads",
    "start_backward",
    "start_forward",
    "take",
    "waiting_bytes",
    "xp",
]
