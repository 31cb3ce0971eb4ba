"""The CPU's instructions, from Numba: vectors, functions of floats, atomics, addresses."""
