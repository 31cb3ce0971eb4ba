"""The GPU's kernels. They compile without a GPU (`ptx.py`), and run on Numba's simulator."""

import fastrnn_kernels.cuda.isa.functions  # noqa: F401  (registers CUDA's forms of the functions)
