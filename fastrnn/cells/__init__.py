"""Cells beside RNN, LSTM and GRU, each of its paper's equations; made when they are asked for.

    from fastrnn.cells import PeepholeLSTM

    lstm = PeepholeLSTM(64, 128, bidirectional=True)

All are written with `fastrnn.cell`, and are used as the layers of one's own are.
"""

from importlib import import_module
from typing import Any

#: By name, the file that defines it.
FILES = {
    "CoupledLSTM": "coupled_lstm",
    "IndRNN": "ind_rnn",
    "JANET": "janet",
    "LeakyRNN": "leaky_rnn",
    "LightRU": "light_recurrent_unit",
    "MGU": "minimal_gated_unit",
    "MinGRU": "min_gru",
    "MinGRULog": "min_gru",
    "MinLSTM": "min_lstm",
    "MinLSTMLog": "min_lstm",
    "PeepholeLSTM": "peephole_lstm",
    "SLSTM": "slstm",
    "SRU": "sru",
}

__all__ = [*FILES]


def define(name: str) -> Any:
    """The layers of a cell of this folder; None if there is none of the name."""
    if name not in FILES:
        return None
    return getattr(import_module(f"{__name__}.{FILES[name]}"), name)


def __getattr__(name: str) -> Any:
    found = define(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
