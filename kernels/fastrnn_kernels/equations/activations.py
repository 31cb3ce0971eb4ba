"""Activations by name, for cells that are given theirs (`variants.py`).

Names, parameters and their usual values are Keras's, but for those of linear, slope and offset, and
of tanh, alpha tanh(beta x). Parameters are part of the compiled code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastrnn_kernels.equations import functions as f

Function = Callable[..., Any]


def _thresholded_relu(x: Any, theta: float) -> Any:
    """X where it is at least theta, else 0; NaN passes."""
    return f.where(x < theta, 0, x)


def _relu6(x: Any) -> Any:
    return f.clip(x, 0, 6)


#: The function of x and its parameters, and what these usually are.
_KNOWN: dict[str, tuple[Function, tuple[float, ...]]] = {
    "tanh": (lambda x, alpha, beta: f.tanh(x * beta) * alpha, (1.0, 1.0)),
    "sigmoid": (f.sigmoid, ()),
    "relu": (f.relu, ()),
    "elu": (f.elu, (1.0,)),
    "exponential": (f.exp, ()),
    "gelu": (f.gelu, ()),
    "hard_sigmoid": (f.hard_sigmoid, (1 / 6, 0.5)),
    "hard_silu": (lambda x: x * f.hard_sigmoid(x), ()),
    "hard_tanh": (f.hard_tanh, ()),
    "leaky_relu": (f.leaky_relu, (0.2,)),
    "linear": (lambda x, slope, offset: x * slope + offset, (1.0, 0.0)),
    "log_sigmoid": (f.logsigmoid, ()),
    "mish": (f.mish, ()),
    "relu6": (_relu6, ()),
    "selu": (f.selu, ()),
    "silu": (f.silu, ()),
    "softplus": (f.softplus, ()),
    "softsign": (f.softsign, ()),
    "thresholded_relu": (_thresholded_relu, (1.0,)),
}
#: All there are.
NAMES = tuple(_KNOWN)


class Activation(NamedTuple):
    """An activation and its parameters."""

    name: str
    parameters: tuple[float, ...] = ()

    @property
    def usual(self) -> bool:
        """Whether its parameters are what they usually are."""
        return self.parameters == _KNOWN[self.name][1]

    def __call__(self, x: Any) -> Any:
        """Its equation."""
        return _KNOWN[self.name][0](x, *self.parameters)

    def __str__(self) -> str:
        parameters = () if self.usual else (f"{value:.9g}" for value in self.parameters)
        return "_".join([self.name, *parameters])


def activation(name: str, *parameters: float) -> Activation:
    """An activation by its name; parameters that are not given are what they usually are.

    Raises KeyError for an unknown name, ValueError for more parameters than it has.
    """
    usual = _KNOWN[name][1]
    if len(parameters) > len(usual):
        raise ValueError(f"{name} has {len(usual)} parameters, and {len(parameters)} came")
    return Activation(name, (*map(float, parameters), *usual[len(parameters) :]))


SIGMOID, TANH, RELU = map(activation, ("sigmoid", "tanh", "relu"))
