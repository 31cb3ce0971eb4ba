"""The door of the operators, whose callers may be programs that anybody wrote."""

from typing import Any

from fastrnn.torch.call import DTYPES


def check(given: Any) -> None:
    """RuntimeError unless operands are what kernels take, but for the shapes of parameters.

    Those are looked at when they are packed.
    """
    states, packed = len(given.cell.states), given.batch_sizes is not None
    each = [n * max(1, given.passes) for n in (2, 3, 4, 5)]  # with biases, with a projection
    _check_count("parameters", given.parameters, each)
    _check_count("states", given.states, [states] if packed else [0, states])
    _check_count("masks", given.masks, [0, given.num_layers - 1])
    first = given.parameters[0]
    if first.dtype not in DTYPES:
        raise RuntimeError(f"parameters are {first.dtype}, wanted float32 or float64")
    for tensor in given.tensors:
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise RuntimeError(
                f"{tensor.dtype} on {tensor.device} beside {first.dtype} on {first.device}"
            )
    x, w_hh, dims = given.x, given.parameters[1], 2 if packed else 3
    if x.dim() != dims or w_hh.dim() != 2 or not x.shape[0]:
        raise RuntimeError(
            f"x has shape {tuple(x.shape)}, weight_hh_l0 {tuple(w_hh.shape)}, wanted {dims} and 2 "
            "dimensions, and a step at least"
        )
    for tensor, shape in zip(given.states, given.state_shapes, strict=False):  # or none
        check_shape("a state", tensor, shape)
    for mask in given.masks:
        check_shape("a mask", mask, given.y_shape)


def _check_count(name: str, tensors: list[Any], wanted: list[int]) -> None:
    if len(tensors) not in wanted:
        counts = " or ".join(map(str, wanted))
        raise RuntimeError(f"{len(tensors)} {name}, wanted {counts}")


def check_shape(name: str, tensor: Any, shape: tuple[Any, ...]) -> None:
    """RuntimeError if a tensor has another shape."""
    if tuple(tensor.shape) != tuple(shape):
        raise RuntimeError(f"{name} has shape {tuple(tensor.shape)}, wanted {tuple(shape)}")
