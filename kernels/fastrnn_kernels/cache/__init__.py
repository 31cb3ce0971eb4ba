"""What is kept on disk: compiled kernels, and times that were measured."""
