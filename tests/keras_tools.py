"""A Keras layer's outputs and gradients as NumPy arrays, on whatever backend runs."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import layers, ops
from keras.src.backend.common import dtypes

# Keras computes layers of float64 in float32, but on TensorFlow; as the truth for fastrnn's, which
# do not, it has to be kept from that.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
BACKEND = keras.backend.backend()
#: Whether gradients can be had; NumPy's backend has none.
TRAINS = BACKEND != "numpy"


def tensor(array: Any) -> Any:
    return None if array is None else ops.convert_to_tensor(array)


def arrays(tensors: Any) -> list[np.ndarray]:
    return [np.asarray(ops.convert_to_numpy(one)) for one in keras.tree.flatten(tensors)]


def weighted_sum(outputs: Any) -> Any:
    """A loss in which every element of every output has a weight of its own."""
    total = 0.0
    for k, output in enumerate(keras.tree.flatten(outputs)):
        rng = np.random.default_rng(k)
        weights = rng.standard_normal(output.shape).astype(
            keras.backend.standardize_dtype(output.dtype)
        )
        total = total + ops.sum(output * ops.convert_to_tensor(weights))
    return total


def outputs(
    layer: Any, x: Any, mask: Any = None, states: Any = None, **how: Any
) -> list[np.ndarray]:
    """What a call of a layer gives, one after the other."""
    return arrays(layer(tensor(x), mask=tensor(mask), initial_state=_list(states), **how))


def _list(states: Any) -> Any:
    return None if states is None else [tensor(state) for state in states]


def gradients(
    layer: Any, x: Any, mask: Any = None, states: Any = None, **how: Any
) -> list[np.ndarray]:
    """The gradients of `weighted_sum` of the outputs: of x, the initial states, the weights."""
    x, mask, states = tensor(x), tensor(mask), _list(states) or []
    how |= {} if mask is None else {"mask": mask}
    variables = layer.trainable_variables
    if BACKEND == "torch":
        given = [one.detach().clone().requires_grad_() for one in (x, *states)]
        for variable in variables:
            variable.value.grad = None
        weighted_sum(layer(given[0], initial_state=given[1:] or None, **how)).backward()
        return [one.grad.numpy().copy() for one in (*given, *(v.value for v in variables))]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            loss = weighted_sum(layer(x, initial_state=states or None, **how))
        return arrays(tape.gradient(loss, [x, *states, *(v.value for v in variables)]))
    import jax

    others = [variable.value for variable in layer.non_trainable_variables]

    def loss(x: Any, states: Any, trainable: Any) -> Any:
        found, _ = layer.stateless_call(trainable, others, x, initial_state=states or None, **how)
        return weighted_sum(found)

    values = [variable.value for variable in variables]
    return arrays(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, states, values))


@contextlib.contextmanager
def only_kernels(loop: bool = True) -> Iterator[None]:
    """Keras's own recurrent steps raise, and its loops if `loop`, and so does a fallback."""

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("Keras's own recurrent code ran")

    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*by Keras's own step")
        for cell in (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell):
            stack.enter_context(mock.patch.object(cell, "call", refuse))
        for name in ("rnn", "lstm", "gru") if loop else ():
            stack.enter_context(mock.patch.object(keras.src.backend, name, refuse))
        yield


def assert_close(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
