"""How the recurrent nodes of a model are joined: whether they are the levels of a layer."""

from itertools import pairwise
from typing import Any

from fastrnn.models.layer import Layer
from fastrnn.onnx.file import File, is_one_of, where_of

#: What moves values without changing them, on their way to an initial state.
_MOVING = (
    "Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
)  # fmt: skip


def is_chain(file: File, layers: list[Layer[Any]]) -> bool:
    """Whether each recurrent node reads y of the one before; layers: of each node, its own."""
    pairs = zip(pairwise(file.recurrent), layers, strict=False)
    return all(_reads(file, node, before, layer) for (before, node), layer in pairs)


def _reads(file: File, node: Any, before: Any, layer: Layer[Any]) -> bool:
    """Whether a node's X is Y of the one before as its layer gives y, (T, B, D * H)."""
    between: list[Any] = []
    name = node.input[0] if node.input else ""
    for _ in file.nodes:  # which may be a circle
        source = file.producers.get(name)
        if source is None or name != source.output[0] or not source.input:
            return False
        if source is before:
            break
        between.append(source)
        name = source.input[0]
    else:
        return False
    axes = "BTDH" if layer.batch_first else "TDBH"
    for moved in reversed(between):
        axes = _axes(file, moved, axes, layer)
    return axes == ("BTH" if layer.batch_first else "TBH")


def _axes(file: File, node: Any, axes: str, layer: Layer[Any]) -> str:
    """The axes behind a node, H that of D * H once D is gone; "" where they are not known."""
    if is_one_of(node, ("Identity", "Dropout")):
        return axes
    if is_one_of(node, ("Transpose",)):
        perm = _integers(file, node, "perm") or list(reversed(range(len(axes))))
        fits = sorted(perm) == list(range(len(axes)))
        return "".join(axes[k] for k in perm) if fits else ""
    if is_one_of(node, ("Squeeze",)):
        place = axes.find("D")
        gone = _integers(file, node, "axes") in ([place], [place - len(axes)])
        return axes.replace("D", "") if gone and place >= 0 and layer.directions == 1 else ""
    if is_one_of(node, ("Reshape",)):
        # Zeros keep an axis, unless allowzero says that they are sizes.
        shape = None if any(a.i for a in node.attribute) else _integers(file, node, "shape")
        together = shape in ([0, 0, -1], [0, 0, layer.output_size]) and axes[2:] in ("H", "DH")
        return axes[:2] + "H" if together else ""
    return ""


def _integers(file: File, node: Any, name: str) -> list[int] | None:
    """An attribute, or the constant that newer versions of an operator have as an input."""
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints)
    return file.integers(node.input[1]) if len(node.input) > 1 else None


def check_states(file: File) -> None:
    """Raise ValueError for an initial state that is neither zero nor the caller's to give.

    A layer starts from zero or from what it is given: a decoder's, which the model computes, is
    another model.
    """
    first = file.recurrent[0].input
    taken = _inputs_of(file, first[0] if first else "")
    for node in file.recurrent:
        for position, what in ((5, "initial_h"), (6, "initial_c")):
            name = node.input[position] if len(node.input) > position else ""
            if name and not _is_free(file, where_of(node), name, taken):
                raise ValueError(
                    f"file {file.path!r}: {where_of(node)}: input {what!r} is computed by the "
                    "model or not zero, which a layer has no place for"
                )


def _inputs_of(file: File, name: str) -> set[str]:
    """The model's inputs that a value is computed of."""
    names, seen = [name], set()
    while names:
        name = names.pop()
        if name not in seen:
            seen.add(name)
            names += file.producers[name].input if name in file.producers else ()
    return (seen & file.inputs) - file.constants.keys()


def _is_free(file: File, where: str, name: str, taken: set[str]) -> bool:
    """Whether a state is zero, or of inputs of the model that are not those in `taken`."""
    names, seen = [name], set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        file.check_time()
        seen.add(name)
        source = file.producers.get(name)
        if name in file.constants:
            if file.array(where, name).any():
                return False
        elif source is None:
            if name not in file.inputs or name in taken:
                return False
        elif is_one_of(source, ("ConstantOfShape",)):  # of zeros, if it has no value
            if any(file.values(where, name, value.t).any() for value in source.attribute):
                return False
        elif is_one_of(source, ("Concat",)):
            names += source.input
        elif is_one_of(source, _MOVING) and source.input:
            names.append(source.input[0])
        else:
            return False
    return True
