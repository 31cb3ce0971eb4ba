"""The shapes that layers and cells take: Keras leaves them to its products, which do not run."""

from typing import Any

from keras import ops

Sizes = tuple[int | None, ...]


def _sizes(tensor: Any) -> Sizes | None:
    """Its shape; while TensorFlow traces, sizes may be None, and so may their number."""
    shape = tensor.shape
    return None if getattr(shape, "rank", 0) is None else tuple(shape)


def _fits(got: Sizes, first: int | None, last: int | None) -> bool:
    """Whether this is (first, last) or (1, last), as far as is known."""
    return (
        len(got) == 2
        and (first is None or got[0] in (first, 1, None))
        and (last is None or got[1] in (last, None))
    )


def check(
    owner: Any, cell: Any, names: tuple[str, ...], axes: str, x: Any, mask: Any, states: Any
) -> None:
    """Look at what a layer or cell was given, as far as sizes are known.

    names: of the states, which are (B, H) each; axes: of x, "BTI" or "BI"; mask (B, T) or
    None. A mask or a state may have one row for the whole batch. Raises ValueError for other
    shapes, and for another number of states.
    """
    I, H = cell.kernel.shape[0], cell.recurrent_kernel.shape[0]
    got = _sizes(x) or (None,) * len(axes)
    letters = ", ".join(axes)
    if len(got) != len(axes):
        raise ValueError(f"{owner.name}: x has shape {got}, wanted ({letters})")
    if got[-1] not in (I, None):
        raise ValueError(f"{owner.name}: x ({letters}) has I={got[-1]}, its kernel takes {I}")
    if len(states) != len(names):
        raise ValueError(
            f"{owner.name}: states are {len(states)}, wanted {len(names)} ({', '.join(names)})"
        )
    B, T = got[0], got[1]
    if mask is not None:
        found = _sizes(mask)
        if found is not None and not _fits(found, B, T):
            raise ValueError(f"{owner.name}: mask has shape {found}, wanted (B, T) = ({B}, {T})")
    for name, state in zip(names, states, strict=True):
        found = _sizes(state)
        if found is not None and not _fits(found, B, H):
            raise ValueError(
                f"{owner.name}: state {name} has shape {found}, wanted (B, H) = ({B}, {H})"
            )


def whole_batch(tensor: Any, first: Any, last: Any) -> Any:
    """A mask or state as (first, last); a row for the whole batch stands for each of its rows.

    Sizes are numbers, or TensorFlow's while it traces and does not know them.
    """
    if isinstance(first, int) and isinstance(last, int) and _sizes(tensor) == (first, last):
        return tensor
    return ops.broadcast_to(tensor, (first, last))
