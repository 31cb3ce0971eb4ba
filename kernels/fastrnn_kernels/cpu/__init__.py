"""The CPU's kernels: register blocks, packing, the sequence forward and backward, threads."""

import fastrnn_kernels.cpu.isa.functions  # noqa: F401  (registers the CPU's forms of the functions)
from fastrnn_kernels.cache import precompiled
from fastrnn_kernels.cpu.isa import levels

precompiled.offer(levels.fitting)
