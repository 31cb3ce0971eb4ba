"""The TensorFlow backend: NumPy functions in the graph, with their own gradient."""

from typing import Any

import tensorflow as tf

from fastrnn.keras.engine import Call
from fastrnn.keras.kept import numbered_backward, numbered_forward
from fastrnn.keras.weights import spread, which


def on_cpu(x: Any) -> bool:
    """Whether the kernels can read it: the graph runs on a GPU where there is one."""
    return not tf.config.list_logical_devices("GPU")


def run(
    call: Call, training: bool, x: Any, mask: Any, weights: Any, states: Any
) -> tuple[Any, list[Any]]:
    """A sequence through the kernels.

    A graph does not tell whether a gradient will be asked for: a tape is kept in training,
    and made again where one is taken elsewhere.
    """
    there, masked = which(weights), mask is not None
    given = [weight for weight in weights if weight is not None]
    masks = [tf.cast(mask, tf.bool)] if masked else []

    def arguments(arrays: Any) -> Any:
        """x, mask, weights and states of the flat list that goes through the graph."""
        mask, (x, *rest) = (arrays[0], arrays[1:]) if masked else (None, arrays)
        return x, mask, spread(there, rest), tuple(rest[sum(there) :])

    def host_forward(*arrays: Any) -> Any:
        shown, final, number = numbered_forward(call, training, *arguments(arrays))
        return shown, *final, number

    def host_backward(number: Any, *arrays: Any) -> Any:
        count = len(arrays) - 1 - len(states)
        d_shown, *d_states = arrays[count:]
        x, mask, weights, start = arguments(arrays[:count])
        dx, d_weights, d_start = numbered_backward(
            call, number, x, mask, weights, start, d_shown, tuple(d_states)
        )
        return dx, *(d for d in d_weights if d is not None), *d_start

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def sequence(*tensors: Any) -> Any:
        floats = [x.dtype] * (1 + len(states))
        *found, number = tf.numpy_function(
            host_forward, [*masks, *tensors], [*floats, tf.uint32], stateful=False
        )
        batch, steps, units = x.shape[0], x.shape[1], weights[1].shape[0]
        found[0].set_shape((batch, steps, units) if call.sequences else (batch, units))
        for state in found[1:]:
            state.set_shape((batch, units))

        def gradient(*d: Any) -> Any:
            types = [tensor.dtype for tensor in tensors]
            gradients = tf.numpy_function(
                host_backward, [number, *masks, *tensors, *d], types, stateful=False
            )
            for one, tensor in zip(gradients, tensors, strict=True):
                one.set_shape(tensor.shape)
            return gradients

        return found, gradient

    shown, *final = sequence(x, *given, *states)
    return shown, final
