"""How the recurrent nodes of a model are joined: whether they are the levels of a layer."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from fastrnn.arrays import Array
from fastrnn.models.layer import Layer
from fastrnn.onnx.file import File, Graph, Recurrent, is_one_of
from fastrnn.onnx.fold import array

#: What moves values without changing them, on their way to an initial state.
_MOVING = (
    "Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
)  # fmt: skip


def is_chain(file: File, nodes: Sequence[Recurrent], layers: list[Layer[Any]]) -> bool:
    """Whether each of the nodes reads y of the one before; layers: of each node, its own."""
    pairs = zip(pairwise(nodes), layers, strict=False)
    return all(_reads(file, node, before, layer) for (before, node), layer in pairs)


def _reads(file: File, node: Recurrent, before: Recurrent, layer: Layer[Any]) -> bool:
    """Whether a node's X is Y of the one before as its layer gives y, (T, B, D * H)."""
    between: list[Any] = []
    graph = node.graph
    name = node.proto.input[0] if node.proto.input else ""
    for _ in range(sum(len(one.nodes) for one in file.graphs)):  # which may be a circle
        source = graph.producer(name)
        if source is None or name != source.output[0] or not source.input:
            return False
        if source is before.proto:
            break
        between.append(source)
        name = source.input[0]
    else:
        return False
    axes = "BTDH" if layer.batch_first else "TDBH"
    for moved in reversed(between):
        axes = _axes(file, graph, moved, axes, layer)
    return axes == ("BTH" if layer.batch_first else "TBH")


def _axes(file: File, graph: Graph, node: Any, axes: str, layer: Layer[Any]) -> str:
    """The axes behind a node, H that of D * H once D is gone; "" where they are not known."""
    if is_one_of(node, ("Identity", "Dropout")):
        return axes
    if is_one_of(node, ("Transpose",)):
        perm = _integers(file, graph, node, "perm") or list(reversed(range(len(axes))))
        fits = sorted(perm) == list(range(len(axes)))
        return "".join(axes[k] for k in perm) if fits else ""
    if is_one_of(node, ("Squeeze",)):
        place = axes.find("D")
        gone = _integers(file, graph, node, "axes") in ([place], [place - len(axes)])
        return axes.replace("D", "") if gone and place >= 0 and layer.directions == 1 else ""
    if is_one_of(node, ("Reshape",)):
        # Zeros keep an axis, unless allowzero says that they are sizes.
        shape = None if any(a.i for a in node.attribute) else _integers(file, graph, node, "shape")
        together = shape in ([0, 0, -1], [0, 0, layer.output_size]) and axes[2:] in ("H", "DH")
        return axes[:2] + "H" if together else ""
    return ""


def _integers(file: File, graph: Graph, node: Any, name: str) -> list[int] | None:
    """An attribute, or the constant that newer versions of an operator have as an input."""
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints)
    return file.integers(graph, node.input[1]) if len(node.input) > 1 else None


def check_states(file: File, nodes: Sequence[Recurrent]) -> None:
    """Raise ValueError for an initial state that is neither zero nor the caller's to give.

    A layer starts from zero or from what it is given: a decoder's, which the model computes, is
    another model. What a Loop or a Scan hands on from step to step is the caller's.
    """
    first = nodes[0].proto.input
    taken = _inputs_of(nodes[0].graph, first[0] if first else "")
    for node in nodes:
        for position, what in ((5, "initial_h"), (6, "initial_c")):
            name = node.proto.input[position] if len(node.proto.input) > position else ""
            if name and not _is_free(file, node, name, taken):
                raise ValueError(
                    f"file {file.path!r}: {node.where}: input {what!r} is computed by the "
                    "model or not zero, which a layer has no place for"
                )


def _inputs_of(graph: Graph, name: str) -> set[str]:
    """The inputs, of the model and of graphs in it, that a value is computed of."""
    names, seen, found = [name], set(), set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        owner = graph.of(name)
        if owner is None or name in owner.constants:
            continue
        if name in owner.producers:
            names += owner.producers[name].input
        else:
            found.add(name)
    return found


def is_learned(file: File, node: Recurrent, name: str) -> bool:
    """Whether a state comes of constants that are not zero, moved, or repeated for the batch."""
    return any(values.any() for values, _ in _sources(file, node, name) if values is not None)


def _is_free(file: File, node: Recurrent, name: str, taken: set[str]) -> bool:
    """Whether a state is zero, or of inputs of the model that are not those in `taken`."""
    return all(
        not values.any() if values is not None else given not in taken and given != ""
        for values, given in _sources(file, node, name)
    )


def _sources(file: File, node: Recurrent, name: str) -> Iterator[tuple[Array | None, str]]:
    """What a state is moved from: the values of constants, else the names of inputs.

    The name is "" of what is computed in another way.
    """
    graph, names, seen = node.graph, [name], set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        file.check_time()
        seen.add(name)
        source = graph.producer(name)
        if graph.constant(name) is not None:
            yield array(file, graph, node.where, name), ""
        elif source is None:
            yield None, name if graph.of(name) is not None else ""
        elif is_one_of(source, ("ConstantOfShape",)):  # of zeros, if it has no value
            for value in source.attribute:
                yield file.values(node.where, name, value.t), ""
        elif is_one_of(source, ("Concat",)):
            names += source.input
        elif is_one_of(source, _MOVING) and source.input:
            names.append(source.input[0])
        else:
            yield None, ""
