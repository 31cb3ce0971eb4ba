"""RNN, LSTM and GRU with activations of choice and peepholes: their arguments, and their cells."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastrnn_kernels.cells.cell import Cell

if TYPE_CHECKING:
    from fastrnn_kernels.equations.activations import Activation
    from fastrnn_kernels.equations.define import Derived

#: Of each kind, the arguments that choose a variant, and what they usually are.
ARGUMENTS: dict[str, Mapping[str, Any]] = {
    "RNN": {"activation": None},
    "LSTM": {"activation": "tanh", "recurrent_activation": "sigmoid", "peepholes": False},
    "GRU": {"activation": "tanh", "recurrent_activation": "sigmoid"},
}


def canonical(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """An RNN's configuration, in which an activation that torch has is its nonlinearity."""
    chosen = config.get("activation")
    if chosen is None:
        return config
    if config["nonlinearity"] != "tanh":
        raise ValueError(
            f"nonlinearity is {config['nonlinearity']!r} and activation {chosen!r}, wanted one"
        )
    if chosen in ("tanh", "relu"):
        return {**config, "nonlinearity": chosen, "activation": None}
    return config


def checked(argument: str, given: Any) -> Any:
    """An activation as layers keep it: its name, or (name, parameters) where they are not usual."""
    from fastrnn_kernels.equations.activations import NAMES, activation

    name, *parameters = given if isinstance(given, tuple | list) and given else (given,)
    if not isinstance(name, str) or not all(_is_number(value) for value in parameters):
        raise TypeError(f"{argument} is {given!r}, wanted a name, or (name, parameters)")
    try:
        found = activation(name, *parameters)
    except KeyError:
        raise ValueError(f"{argument} is {given!r}, wanted one of {', '.join(NAMES)}") from None
    except ValueError as error:
        raise ValueError(f"{argument} is {given!r}: {error}") from None
    return kept(found)


def kept(chosen: "Activation") -> Any:
    """An activation as an argument."""
    return chosen.name if chosen.usual else (chosen.name, *chosen.parameters)


def is_usual(kind: str, layer: Any) -> bool:
    """Whether a layer has a cell of the registry, none of these."""
    return all(getattr(layer, name) == usual for name, usual in ARGUMENTS.get(kind, {}).items())


def cell_of(kind: str, layer: Any) -> Cell:
    """The cell that the arguments of a layer of one of these kinds ask for."""
    # Of equations, which take a while to import, and which few layers need.
    from fastrnn_kernels.equations import variants

    if kind == "RNN":
        return variants.rnn(_of(layer.activation or layer.nonlinearity), None)
    gate, act = _of(layer.recurrent_activation), _of(layer.activation)
    if kind == "LSTM":
        return variants.lstm(gate, act, act, None, layer.peepholes, False)
    return variants.gru(gate, act, None, layer.reset_after)


def equations_of(kind: str, layer: Any) -> "Derived":
    """The equations of that cell, also where it is written by hand."""
    from fastrnn_kernels.equations import variants

    if kind == "RNN":
        return variants.rnn_equations(_of(layer.activation or layer.nonlinearity), None)
    gate, act = _of(layer.recurrent_activation), _of(layer.activation)
    if kind == "LSTM":
        return variants.lstm_equations(gate, act, act, None, layer.peepholes, False)
    return variants.gru_equations(gate, act, None, layer.reset_after)


def _of(value: Any) -> "Activation":
    from fastrnn_kernels.equations.activations import activation

    return activation(*((value,) if isinstance(value, str) else value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0
