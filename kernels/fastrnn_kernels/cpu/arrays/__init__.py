"""Memory of the CPU's kernels, and NumPy's arrays in it."""
