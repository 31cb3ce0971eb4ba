"""The CPU's kernels: register blocks, packing, the sequence forward and backward, threads."""

import numpy as xp

import fastrnn_kernels.cpu.scalar  # noqa: F401  (registers the CPU's forms of the functions)
from fastrnn_kernels.cpu.arrays import give, take
from fastrnn_kernels.cpu.board import prepare as prepare_threads
from fastrnn_kernels.cpu.linear_stage import LinearStage
from fastrnn_kernels.cpu.memory import empty, waiting_bytes
from fastrnn_kernels.cpu.memory import release as release_memory
from fastrnn_kernels.cpu.plan import scratch_bytes
from fastrnn_kernels.cpu.program import Program, Stage, cell_stage, pack_linear
from fastrnn_kernels.cpu.sequence import Backward, Forward, start_backward, start_forward
from fastrnn_kernels.cpu.tape import Tape
from fastrnn_kernels.cpu.threads import (
    available_cpus,
    board_address,
    get_num_threads,
    run,
    set_num_threads,
)
from fastrnn_kernels.cpu.weights import Weights
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
