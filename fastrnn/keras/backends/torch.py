"""The torch backend: a function of autograd, on the tensors' own memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fastrnn.adapting import threads_of
from fastrnn.keras.engine import Call, Tape, backward, forward
from fastrnn.keras.weights import spread, which
from fastrnn_kernels.tape import ARRAYS


def on_cpu(x: Any) -> bool:
    """Whether the kernels can read it; tensors of the device "meta" have nothing to read."""
    return x.device.type in ("cpu", "meta")


def _array(tensor: Any) -> Any:
    """The same memory as NumPy's."""
    return None if tensor is None else tensor.detach().numpy()


def _tensors(arrays: Any) -> Any:
    """The same memory as torch's."""
    return [None if array is None else torch.from_numpy(array) for array in arrays]


class _Sequence(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: Call, x: Any, mask: Any, there: Any, *tensors: Any) -> Any:
        """Tensors are the weights that are `there`, then the states."""
        arrays = [_array(tensor) for tensor in tensors]
        weights, states = spread(there, arrays), tuple(arrays[sum(there) :])
        with threads_of(torch, "libtorch_cpu"):
            shown, final, tape = forward(
                call, _array(x), _array(mask), weights, states, taping=True
            )
        assert tape is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*_tensors(getattr(tape.taken, name) for name in ARRAYS))
        # torch lets go of what was saved right after the backward pass; so shall this.
        nothing: Any = dict.fromkeys(ARRAYS, np.empty(0, shown.dtype))
        ctx.rest = replace(tape, taken=replace(tape.taken, **nothing))
        return tuple(_tensors((shown, *final)))

    @staticmethod
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_shown: Any, *d_states: Any) -> Any:
        saved = dict(zip(ARRAYS, map(_array, ctx.saved_tensors), strict=True))
        tape: Tape = replace(ctx.rest, taken=replace(ctx.rest.taken, **saved))
        with threads_of(torch, "libtorch_cpu"):
            dx, d_weights, d_start = backward(
                tape, _array(d_shown), tuple(map(_array, d_states)), ctx.needs_input_grad[1]
            )
        given = [d for d in d_weights if d is not None]
        return None, *_tensors((dx, None, None, *given, *d_start))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run(
    call: Call, training: bool, x: Any, mask: Any, weights: Any, states: Any
) -> tuple[Any, list[Any]]:
    """A sequence through the kernels."""
    B, T, H = x.shape[0], x.shape[1], weights[1].shape[0]
    if x.device.type == "meta":
        shape = (B, T, H) if call.sequences else (B, H)
        return x.new_empty(shape), [x.new_empty((B, H)) for _ in states]
    if mask is not None:
        mask = mask.to("cpu", torch.bool)
    given = [weight for weight in weights if weight is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *given, *states)):
        shown, *final = _Sequence.apply(call, x, mask, which(weights), *given, *states)
        return shown, final
    with threads_of(torch, "libtorch_cpu"):
        shown, ends, _ = forward(
            call, _array(x), _array(mask), tuple(map(_array, weights)),
            tuple(map(_array, states)), taping=False,
        )  # fmt: skip
    return torch.from_numpy(shown), _tensors(ends)
