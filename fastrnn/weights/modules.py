"""Modules of a file's names: all in order, or those behind a prefix.

Checkpoints keep state dicts in dictionaries of their own making: {"model": ...}, {"generator": ...,
"ema": ...}, among an optimiser's state, options and counters. A name's path is that of the
dictionaries and its own, joined by dots.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastrnn.arrays import Array
from fastrnn.files.errors import MisfitError
from fastrnn.files.pickle import Foreign
from fastrnn.models.sequential import Sequential
from fastrnn.weights.contents import Part, shapes_of, with_listing
from fastrnn.weights.state_dict import from_state_dict, grouped, is_one, module_of
from fastrnn_kernels import handlers

#: Names under which most checkpoints keep their one state dict.
_INSIDE = ("state_dict", "model_state_dict")
#: Dictionaries inside of each other, and these, names, and characters of paths in all: more than
#: any checkpoint has, where one may stand in many places.
_DEEP, _MANY, _CHARACTERS = 16, 200_000, 1 << 24
#: State dicts in a checkpoint, and the modules that an error looks at.
_ROOTS, _LOOKED_AT = 1000, 200
_TOO_DEEP = "it has more dictionaries inside of each other than any checkpoint with a state_dict"
#: Makes an array of what stands under a name; raises MisfitError for what is none.
Reader = Callable[[str, Any], Array]


class ForeignError(MisfitError):
    """What stands in an array's place, and is no value at all."""


def told(found: Foreign) -> str:
    """What is wrong with an object of a class of another program, and what to do."""
    return (
        f"a pickled {found.name}, and nothing that a file names is made or run: save the "
        "state_dict() of the model alone, by torch.save(model.state_dict(), ...)"
    )


def load(path: str, found: Mapping[Any, Any], device: str, prefix: str, array: Reader) -> Any:
    """The layer of some names that has one, else a Sequential of the modules in order.

    prefix: "" for all of the one state dict, or a path, whole or from a state dict on.
    array: makes an array of what stands under a name.

    Raises ValueError for names that make no model, with the prefixes that would do.
    """
    roots = _state_dicts(found)
    own = _chosen(path, found, roots, prefix, device, array)
    usual = _usual(roots)
    if not prefix and len(usual) < len(roots):
        others = ", ".join(root.removesuffix(".") for root, _ in roots if root != usual[0][0])
        logging.getLogger("fastrnn").warning(
            "file %r has other state dicts, which were left out; prefix takes one: %s",
            path,
            others[:500],
        )
    left = _foreign(found, own)
    if left:
        logging.getLogger("fastrnn").warning(
            "file %r names %s: nothing of these is made or run, and they were left out",
            path,
            ", ".join(f"{foreign.name} ({name})" for name, foreign in left[:8]),
        )
    try:
        model = from_state_dict(own, device, array)
    except MisfitError as error:
        handlers.pass_on(error)
        alone = " holds no weights alone" * isinstance(error, ForeignError)
        parts = _parts(roots, device, array) if len(grouped(own)) > 1 or prefix else []
        raise ValueError(with_listing(f"file {path!r}{alone}: {error}", parts)) from None
    if isinstance(model, Sequential) and len(model.modules) == 1:
        return model.modules[0]
    return model


def contents(found: Mapping[Any, Any], device: str, array: Reader) -> list[Part]:
    """All modules of a file, by the prefixes that `load` takes."""
    return _parts(_state_dicts(found), device, array, _MANY)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") or isinstance(value, list)


def _is_weight(name: Any, value: Any) -> bool:
    """Whether a state dict has a value under such a name, and not a checkpoint beside it."""
    last = str(name).rpartition(".")[2]
    return _is_array(value) and ("weight" in last or "bias" in last or "parametrizations" in name)


class _Room:
    """What walking through dictionaries may still take."""

    def __init__(self) -> None:
        self._many, self._characters = _MANY, _CHARACTERS

    def take(self, path: str, deep: int) -> None:
        """Raise MisfitError where one more name is too much."""
        self._many -= 1
        self._characters -= len(path)
        if deep > _DEEP or self._many < 0 or self._characters < 0:
            raise MisfitError(_TOO_DEEP)


def _flat(found: Mapping[Any, Any]) -> dict[str, Any]:
    """All that is no dictionary, by its path."""
    flat: dict[str, Any] = {}
    room = _Room()
    todo: list[tuple[str, Mapping[Any, Any], int]] = [("", found, 0)]
    while todo:
        path, one, deep = todo.pop()
        inner = []
        for name, value in one.items():
            if not isinstance(name, str | int):
                continue
            whole = f"{path}{name}"
            room.take(whole, deep)
            if isinstance(value, Mapping):
                inner.append((f"{whole}.", value, deep + 1))
            else:
                flat[whole] = value
        todo += reversed(inner)
    return flat


def _state_dicts(found: Mapping[Any, Any]) -> list[tuple[str, Mapping[Any, Any]]]:
    """The dictionaries that have weights themselves, with their paths; optimisers are none."""
    roots: dict[bool, list[tuple[str, Mapping[Any, Any]]]] = {True: [], False: []}
    room = _Room()
    todo: list[tuple[str, Mapping[Any, Any], int]] = [("", found, 0)]
    while todo:
        path, one, deep = todo.pop()
        room.take(path, deep)
        if "param_groups" in one:
            continue
        named = {name: value for name, value in one.items() if isinstance(name, str)}
        weights = is_one(named) or any(_is_weight(name, value) for name, value in named.items())
        if weights or any(map(_is_array, named.values())):
            roots[weights].append((path, one))
            if len(roots[weights]) > _ROOTS:
                raise MisfitError(_TOO_DEEP)
        if weights:
            continue
        inner = []
        for name, value in named.items():
            if isinstance(value, Mapping):
                room.take(path + name, deep)
                inner.append((f"{path}{name}.", value, deep + 1))
        todo += reversed(inner)
    return roots[True] or roots[False]


def _usual(
    roots: list[tuple[str, Mapping[Any, Any]]],
) -> list[tuple[str, Mapping[Any, Any]]]:
    """The one under a usual name, else all."""
    named = [root for root in roots if root[0].removesuffix(".") in _INSIDE]
    return named[:1] or roots


def _chosen(
    path: str, found: Mapping[Any, Any], roots: list[tuple[str, Mapping[Any, Any]]], prefix: str,
    device: str, array: Reader,
) -> dict[str, Any]:  # fmt: skip
    """The values of the names to take, by the names' rests."""
    usual = _usual(roots)
    if not prefix:
        if len(usual) == 1:
            return _flat(usual[0][1])
        if not roots:
            what = ", ".join(map(str, list(found)[:8])) or "nothing"
            raise ValueError(
                f"file {path!r} holds neither layers nor a state dict: no names of weights, but "
                f"{what}"[:500]
            )
        names = ", ".join(repr(root.removesuffix(".")) for root, _ in roots[:8])
        message = f"file {path!r} has several state dicts ({names}), of which prefix takes one"
        raise ValueError(with_listing(message, _parts(roots, device, array)))
    begin = f"{prefix}."
    places = {"": _flat(found)}
    places |= {root: _flat(inner) for root, inner in usual if root}
    taken = {}
    for place, flat in places.items():
        own = {n.removeprefix(begin): v for n, v in flat.items() if n.startswith(begin)}
        if own and place == "":
            return own
        if own:
            taken[place + prefix] = own
    if len(taken) == 1:
        return next(iter(taken.values()))
    message = f"file {path!r} has no names that begin with {begin!r}"
    if taken:
        message = f"file {path!r} has {prefix!r} in {', '.join(map(repr, taken))}"
    raise ValueError(with_listing(message, _parts(roots, device, array)))


def _foreign(found: Mapping[Any, Any], own: Mapping[str, Any]) -> list[tuple[str, Foreign]]:
    """What else the file names that is neither a value nor taken."""
    taken = {id(value) for value in own.values()}
    return [
        (name, value)
        for name, value in _flat(found).items()
        if isinstance(value, Foreign) and id(value) not in taken
    ]


def _parts(
    roots: list[tuple[str, Mapping[Any, Any]]], device: str, array: Reader, most: int = _LOOKED_AT
) -> list[Part]:
    """The modules of state dicts, recurrent ones first; the first ones alone, for an error."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    usual = _usual(roots)
    for root, inner in roots[:most]:
        start = "" if usual == [(root, inner)] else root
        for prefix, values in grouped(_flat(inner)).items():
            found.append((f"{start}{prefix}".removesuffix("."), prefix, values))
    found.sort(key=lambda one: not is_one(one[2]))
    parts = []
    for name, prefix, values in found[:most]:
        try:
            model = module_of(prefix, values, device, array)
        except MisfitError as error:
            handlers.pass_on(error)
            parts.append(Part(name, shapes_of(values), reason=str(error)))
        else:
            parts.append(Part(name, shapes_of(model.parameters), model))
    return parts
