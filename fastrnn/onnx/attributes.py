"""The attributes of ONNX's recurrent operators, and the cells that they ask for."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations import variants
from fastrnn_kernels.equations.activations import SIGMOID, TANH, Activation, activation

#: Of each operator: gates, the activations of a direction, and the attributes that it alone has.
OPERATORS: dict[str, tuple[int, tuple[Activation, ...], str | None]] = {
    "RNN": (1, (TANH,), None),
    "LSTM": (4, (SIGMOID, TANH, TANH), "input_forget"),
    "GRU": (3, (SIGMOID, TANH), "linear_before_reset"),
}
_COMMON = (
    "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size",
    "layout",
)  # fmt: skip
#: Activations, and what fastrnn calls them.
_NAMES = {
    "tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu", "affine": "linear",
    "leakyrelu": "leaky_relu", "thresholdedrelu": "thresholded_relu", "scaledtanh": "tanh",
    "hardsigmoid": "hard_sigmoid", "elu": "elu", "softsign": "softsign", "softplus": "softplus",
}  # fmt: skip
#: Parameters that activations take, and their values where a node has none: those of the ONNX
#: operators of the same names. Nothing says what they are for Affine and ScaledTanh.
_ALPHAS: dict[str, float | None] = {
    "affine": None, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": None,
    "hardsigmoid": 0.2, "elu": 1.0,
}  # fmt: skip
_BETAS: dict[str, float | None] = {"affine": None, "scaledtanh": None, "hardsigmoid": 0.5}


def _all(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Iterable) and all(isinstance(v, kinds) for v in value)


#: What the value of an attribute has to be.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "activation_alpha": ("numbers", _all(float, int, np.floating)),
    "activation_beta": ("numbers", _all(float, int, np.floating)),
    "activations": ("names", _all(str, bytes)),
    "clip": ("a number", lambda value: isinstance(value, float | int | np.floating)),
    "direction": ("a word", lambda value: isinstance(value, str | bytes)),
    **{
        name: ("an integer", lambda value: isinstance(value, int | np.integer))
        for name in ("hidden_size", "layout", "input_forget", "linear_before_reset")
    },
}


@dataclass(frozen=True)
class Node:
    """What a node asks for.

    activations: of each direction, those of its operator in ONNX's order.
    """

    kind: str
    where: str  # how errors call it
    activations: tuple[tuple[Activation, ...], ...]
    reverse: tuple[bool, ...]
    clip: float | None
    hidden_size: int | None
    batch_first: bool
    option: bool  # input_forget or linear_before_reset

    @property
    def gates(self) -> int:
        """G."""
        return OPERATORS[self.kind][0]

    def cell(self, direction: int, peepholes: bool) -> Cell:
        """The kernels' cell of a direction."""
        chosen = self.activations[direction]
        if self.kind == "RNN":
            return variants.rnn(*chosen, self.clip)
        if self.kind == "LSTM":
            return variants.lstm(*chosen, self.clip, peepholes, self.option)
        return variants.gru(*chosen, self.clip, self.option)


def place(kind: str, name: str) -> str:
    """How errors call a node."""
    return f"{kind} node {name!r}" if name else f"{kind} node without a name"


def check_names(kind: str, where: str, names: Sequence[str]) -> None:
    """Raise ValueError for an attribute that the operator has not."""
    own = OPERATORS[kind][2]
    known = [*_COMMON, own] if own else list(_COMMON)
    for name in names:
        if name not in known:
            raise ValueError(
                f"{where}: attribute {name!r} is not supported; wanted {', '.join(known)}"
            )


def parse(kind: str, where: str, given: Mapping[str, Any]) -> Node:
    """A node of its attributes; None stands for one that is not there.

    Raises ValueError that names the node and the attribute.
    """
    check_names(kind, where, list(given))
    for name, value in given.items():
        if value is not None and not _TYPES[name][1](value):
            raise ValueError(f"{where}: attribute {name!r} is {value!r}, wanted {_TYPES[name][0]}")
    _, usual, own = OPERATORS[kind]
    reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(
        _text(given.get("direction") or "forward")
    )
    if reverse is None:
        raise ValueError(
            f"{where}: attribute 'direction' is {given['direction']!r}, wanted 'forward', "
            "'reverse' or 'bidirectional'"
        )
    size = given.get("hidden_size")
    if size is not None and size < 1:
        raise ValueError(f"{where}: attribute 'hidden_size' is {size}, wanted at least 1")
    clip = given.get("clip")
    if clip is not None and not clip > 0:
        raise ValueError(f"{where}: attribute 'clip' is {clip}, wanted more than 0")
    flags = []
    for flag in ("layout", own):
        value = (given.get(flag) or 0) if flag else 0
        if value not in (0, 1):
            raise ValueError(f"{where}: attribute {flag!r} is {value}, wanted 0 or 1")
        flags.append(bool(value))
    return Node(
        kind,
        where,
        _activations(where, given, usual, len(reverse)),
        reverse,
        None if clip is None or math.isinf(clip) else float(clip),
        size,
        *flags,
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _activations(
    where: str, given: Mapping[str, Any], usual: tuple[Activation, ...], directions: int
) -> tuple[tuple[Activation, ...], ...]:
    names = [_text(name) for name in given.get("activations") or ()]
    if not names:
        return (usual,) * directions
    many = len(usual)
    if many == 1:
        names = names[:directions] if len(names) == 2 else names  # as the default has
    if len(names) != many * directions:
        raise ValueError(
            f"{where}: attribute 'activations' has {len(names)} of them, wanted {many * directions}"
        )
    lower = [name.lower() for name in names]
    for name in names:
        if name.lower() not in _NAMES:
            raise ValueError(f"{where}: attribute 'activations' names the unknown {name!r}")
    # An RNN has a value for each direction; in other operators the activations that take one
    # consume them in order, as onnxruntime reads it.
    values = [
        _parameters(where, attribute, lower, given.get(attribute), defaults, many == 1)
        for attribute, defaults in (("activation_alpha", _ALPHAS), ("activation_beta", _BETAS))
    ]
    found = [
        activation(_NAMES[name], *(value for value in given if value is not None))
        for name, *given in zip(lower, *values, strict=True)
    ]
    return tuple(tuple(found[d * many : (d + 1) * many]) for d in range(directions))


def _parameters(
    where: str,
    attribute: str,
    names: list[str],
    given: Any,
    defaults: Mapping[str, float | None],
    by_place: bool,
) -> list[float | None]:
    values = [float(value) for value in (() if given is None else given)]
    if by_place and len(values) == len(names):
        values = [value for value, name in zip(values, names, strict=True) if name in defaults]
    found: list[float | None] = []
    for name in names:
        value = None
        if name in defaults:
            value = values.pop(0) if values else defaults[name]
            if value is None:
                raise ValueError(f"{where}: attribute {attribute!r} has no value for {name!r}")
        found.append(value)
    return found
