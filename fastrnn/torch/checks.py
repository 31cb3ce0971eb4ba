"""The door of the operators, whose callers may be programs that anybody wrote."""

from typing import Any

import torch

from fastrnn.torch.call import DTYPES
from fastrnn.torch.fallbacks import LOW


def check(given: Any) -> None:
    """RuntimeError unless operands are what kernels take, but for the shapes of parameters.

    Those are looked at when they are packed.
    """
    states, packed = len(given.cell.states), given.batch_sizes is not None
    each = [len(kinds) * max(1, given.passes) for kinds in given.possible]
    _check_count("parameters", given.parameters, each)
    _check_count("states", given.states, [states] if packed else [0, states])
    _check_count("masks", given.masks, [0, given.num_layers - 1])
    first, others = given.parameters[0], [given.x, *given.states, *given.masks]
    if first.dtype not in (*DTYPES, *LOW):
        wanted = ", ".join(map(str, (*DTYPES, *LOW)))
        raise RuntimeError(f"parameters are {first.dtype}, wanted one of {wanted}")
    wide = torch.float32 if first.dtype in LOW else first.dtype
    taken = (wide, *LOW) if wide is torch.float32 else (wide,)
    for types, tensors in (((wide,), others), (taken, given.parameters)):
        for tensor in tensors:
            if tensor.dtype not in types or tensor.device != first.device:
                raise RuntimeError(
                    f"{tensor.dtype} on {tensor.device} beside {wide} on {first.device}"
                )
    name = "weight_hh" if "weight_hh" in given.kinds else "weight_ih"
    x, weight, dims = given.x, given.parameters[given.kinds.index(name)], 2 if packed else 3
    if x.dim() != dims or weight.dim() != 2 or not x.shape[0]:
        raise RuntimeError(
            f"x has shape {tuple(x.shape)}, {name}_l0 {tuple(weight.shape)}, wanted {dims} and 2 "
            "dimensions, and a step at least"
        )
    for tensor, shape in zip(given.states, given.state_shapes, strict=False):  # or none
        check_shape("a state", tensor, shape)
    for mask in given.masks:
        check_shape("a mask", mask, given.y_shape)


def _check_count(name: str, tensors: list[Any], wanted: list[int]) -> None:
    if len(tensors) not in wanted:
        counts = " or ".join(map(str, sorted(wanted)))
        raise RuntimeError(f"{len(tensors)} {name}, wanted {counts}")


def check_shape(name: str, tensor: Any, shape: tuple[Any, ...]) -> None:
    """RuntimeError if a tensor has another shape."""
    if tuple(tensor.shape) != tuple(shape):
        raise RuntimeError(f"{name} has shape {tuple(tensor.shape)}, wanted {tuple(shape)}")
