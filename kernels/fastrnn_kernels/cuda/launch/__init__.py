"""Kernels on their way to the GPU: compiled, launched, recorded."""
