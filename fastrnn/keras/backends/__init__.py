"""A module for each backend of Keras; `run` takes a sequence through the kernels on it.

    run(call, training, x, mask, weights, states) -> output, final states

Tensors are the backend's, floats all of one type, and gradients flow through them.
"""
