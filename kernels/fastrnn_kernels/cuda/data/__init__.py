"""Arrays of a pass on the GPU: weights, tapes, and the memory that they take."""
