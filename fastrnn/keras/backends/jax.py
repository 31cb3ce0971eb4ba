"""The JAX backend: calls of compiled code from programs, with their own rule for gradients.

What `jax_calls.py` has no call for, sizes that are not known or 0, is a callback from the program
into Python. `jax.pure_callback` would copy its arguments by a task of the very thread pool in which
the callback stands: with one CPU that waits forever. `buffer_callback` hands over the buffers.
"""

import atexit
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.experimental.buffer_callback import buffer_callback

from fastrnn.keras.backends import jax_calls
from fastrnn.keras.engine import Call
from fastrnn.keras.kept import numbered_backward, numbered_forward


def on_cpu(x: Any) -> bool:
    """Whether the kernels can read it: a traced array is where JAX computes by default."""
    return str(jax.default_backend()) == "cpu"


def _arrays(tree: Any) -> Any:
    """Arrays or buffers of JAX's as NumPy's, of the same memory."""
    return jax.tree.map(np.asarray, tree)


@atexit.register
def _finish() -> None:
    """Wait for programs whose results are still there: Python must not end under a callback."""
    for array in jax.live_arrays():
        with contextlib.suppress(Exception):  # of the program, which nobody asks for now
            array.block_until_ready()
    jax_calls.finish()


@dataclass(frozen=True)
class _Forward:
    """A pass; two for the same call are equal, so that JAX compiles one program for both."""

    call: Call
    taping: bool

    def on_arrays(self, *arguments: Any) -> Any:
        return numbered_forward(self.call, self.taping, *arguments)

    def __call__(self, context: Any, out: Any, *arguments: Any) -> None:
        """The same from a compiled program, into its buffers."""
        jax.tree.map(np.copyto, _arrays(out), self.on_arrays(*_arrays(arguments)))


@dataclass(frozen=True)
class _Backward:
    call: Call

    def on_arrays(self, *arguments: Any) -> Any:
        return numbered_backward(self.call, *arguments)

    def __call__(self, context: Any, out: Any, *arguments: Any) -> None:
        """The same from a compiled program, into its buffers."""
        jax.tree.map(np.copyto, _arrays(out), self.on_arrays(*_arrays(arguments)))


def _traced(*arguments: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))


def _run(of_pass: Any, like: Any, *arguments: Any) -> Any:
    """A pass, in the program that is traced, or at once if none is."""
    if _traced(*arguments):
        return buffer_callback(of_pass, like, vmap_method="sequential")(*arguments)
    return jax.tree.map(jnp.asarray, of_pass.on_arrays(*_arrays(arguments)))


def _like(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def _forward(call: Call, taping: bool, x: Any, mask: Any, weights: Any, states: Any) -> Any:
    shape = (*x.shape[:2], states[0].shape[-1]) if call.sequences else states[0].shape
    like = jax.ShapeDtypeStruct(shape, x.dtype), _like(states), jax.ShapeDtypeStruct((), np.uint32)
    return _run(_Forward(call, taping), like, x, mask, weights, states)


def _whole(leaf: Any) -> Any:
    """A gradient, zeros where JAX says no more than that."""
    if isinstance(leaf, jax.custom_derivatives.SymbolicZero):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return leaf


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sequence(call: Call, x: Any, mask: Any, weights: Any, states: Any) -> Any:
    of = jax_calls.sequences_of(call, x, mask, weights, states)
    if of is not None and _traced(x, mask, weights, states):
        return jax_calls.forward(of, False, x, mask, weights, states)[:2]
    return _forward(call, False, x, mask, weights, states)[:2]


def _taped(call: Call, *given: Any) -> Any:
    """What is kept holds a tape as bytes, or the number of one that waits in this process."""
    # Structure is all that goes from here to the backward pass without being an array.
    wanted = () if given[0].perturbed else None
    x, mask, weights, states = jax.tree.map(lambda one: one.value, given)
    of = jax_calls.sequences_of(call, x, mask, weights, states)
    if of is not None and _traced(x, mask, weights, states):
        shown, final, tape = jax_calls.forward(of, True, x, mask, weights, states)
        return (shown, final), (wanted, tape, None, x, mask, weights, states)
    shown, final, number = _forward(call, True, x, mask, weights, states)
    return (shown, final), (wanted, None, number, x, mask, weights, states)


def _gradients(call: Call, kept: Any, d: Any) -> Any:
    wanted, tape, number, x, mask, weights, states = kept
    d_shown, d_final = jax.tree.map(_whole, d)
    if tape is None:
        like = _like((x, weights, states))
        arguments = number, x, mask, weights, states, d_shown, d_final
        dx, d_weights, d_states = _run(_Backward(call), like, *arguments)
        return dx, None, d_weights, d_states
    of = jax_calls.sequences_of(call, x, mask, weights, states)
    assert of is not None
    inputs = wanted is not None
    given = x, mask, weights, d_shown, d_final
    dx, d_weights, d_states = jax_calls.backward(of, inputs, tape, *given)
    return dx, None, d_weights, d_states


_sequence.defvjp(_taped, _gradients, symbolic_zeros=True)


def run(
    call: Call, training: bool, x: Any, mask: Any, weights: Any, states: Any
) -> tuple[Any, list[Any]]:
    """A sequence through the kernels."""
    if mask is not None:
        mask = mask.astype(bool)
    shown, final = _sequence(call, x, mask, tuple(weights), tuple(states))
    return shown, list(final)
