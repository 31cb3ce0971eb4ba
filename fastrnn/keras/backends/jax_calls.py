"""Passes as calls of compiled code in JAX's programs, by XLA's FFI and without Python."""

import uuid
from functools import cache
from typing import Any

import jax
import numpy as np

from fastrnn.keras.engine import Call
from fastrnn_kernels.cpu.sequence.recipes import kept
from fastrnn_kernels.cpu.sequence.shapes import Masked, Sequences, tape_bytes
from fastrnn_kernels.cpu.threads.recipe import Recipe
from fastrnn_kernels.cpu.threads.xla import Handler, handler


@cache
def _target() -> tuple[str, Handler] | None:
    """The name by which programs call the handler, and that; None where there is none.

    A program that another process compiled, and that was kept on disk, knows addresses of that
    process: so the name is this process's alone, and no other finds it.
    """
    found = handler()
    if found is None:
        return None
    name = f"fastrnn-{uuid.uuid4().hex}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(found.address), platform="cpu")
    return name, found


def finish() -> None:
    """Wait until no call is left in this process."""
    found = _target() if _target.cache_info().currsize else None
    if found is not None:
        found[1].finish()


def sequences_of(call: Call, x: Any, mask: Any, weights: Any, states: Any) -> Sequences | None:
    """What a recipe is made for, None where there is none.

    That is with parameters of each unit, with a mask of h, with gates without an h-part, with more
    states than two, for sizes not known or 0.
    """
    _, recurrent, bias, units, h_mask = weights
    sizes = *x.shape, recurrent.shape[0]
    known = all(isinstance(size, int) and size > 0 for size in sizes)  # Keras traces without some
    plain = units is None and h_mask is None and call.cell.X == 0 and call.cell.N <= 2
    if not plain or not known or _target() is None:
        return None
    B, T, I = x.shape
    return Sequences(
        call.cell, call.layout.places(call.cell), T, B, I, recurrent.shape[0], str(x.dtype),
        0 if bias is None else 1 + call.layout.two_biases, call.go_backwards, call.sequences,
        None if mask is None else Masked(call.zeros, call.holds_start),
    )  # fmt: skip


def _call(recipe: Recipe, arguments: Any, results: list[Any]) -> list[Any]:
    found = _target()
    assert found is not None
    name, target = found
    results = [*results, jax.ShapeDtypeStruct((recipe.workspace_bytes,), np.uint8)]
    called = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    made = called(*arguments, gate=np.int64(target.gate), recipe=np.int64(recipe.address))
    return list(made[:-1])


def _like(arrays: Any) -> list[Any]:
    return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]


def _some(*arrays: Any) -> list[Any]:
    """Those that there are."""
    return [array for array in arrays if array is not None]


def forward(
    of: Sequences, taping: bool, x: Any, mask: Any, weights: Any, states: Any
) -> tuple[Any, tuple[Any, ...], Any]:
    """The output, the final states and the tape, as bytes, or None."""
    arguments = _some(x, *weights, *states, mask)
    results = [jax.ShapeDtypeStruct(of.shown, x.dtype), *_like(states)]
    if taping:
        results.append(jax.ShapeDtypeStruct((tape_bytes(of),), np.uint8))
    shown, *rest = _call(kept(of, False, taping), arguments, results)
    return shown, tuple(rest[: len(states)]), rest[-1] if taping else None


def backward(
    of: Sequences, inputs: bool, tape: Any, x: Any, mask: Any, weights: Any, *d: Any
) -> tuple[Any, Any, Any]:
    """The gradients of x (None without `inputs`), of the weights and of the initial states.

    d: those of the output, and of the final states.
    """
    (kernel, recurrent, bias, _, _), (d_shown, d_states) = weights, d
    results = _like(_some(x if inputs else None, *weights, *d_states))
    arguments = _some(tape, kernel, recurrent, d_shown, *d_states, mask)
    found = _call(kept(of, True, inputs), arguments, results)
    dx = found.pop(0) if inputs else None
    d_kernel, d_recurrent = found[:2]
    d_bias = None if bias is None else found[2]
    return dx, (d_kernel, d_recurrent, d_bias, None, None), tuple(found[-len(d_states) :])
