"""The CPU's kernels: register blocks, packing, the sequence forward and backward, threads."""

import fastrnn_kernels.cpu.scalar  # noqa: F401  (registers the CPU's forms of the functions)
from fastrnn_kernels.cpu.sequence import (
    Backward,
    Forward,
    Gradients,
    Rows,
    Tape,
    start_backward,
    start_forward,
)
from fastrnn_kernels.cpu.threads import (
    available_cpus,
    get_num_threads,
    run,
    set_num_threads,
)
from fastrnn_kernels.cpu.weights import Weights

__all__ = [
    "Backward",
    "Forward",
    "Gradients",
    "Rows",
    "Tape",
    "Weights",
    "available_cpus",
    "get_num_threads",
    "run",
    "set_num_threads",
    "start_backward",
    "start_forward",
]
