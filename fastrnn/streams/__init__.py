"""Models one step at a time, on the CPU and on the GPU, and their states."""
