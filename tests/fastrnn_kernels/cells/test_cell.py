"""What a cell tells of itself, and what is none."""

import pytest

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.cells.lstm import LSTM


def nothing(*arguments):
    return arguments


def made(**given):
    parts = {"gates": ("a", "b"), "states": ("h", "c", "p"), "saved": ("a",)} | given
    return Cell("made", forward=nothing, backward=nothing, **parts)


@pytest.mark.parametrize(
    ("cell", "counts", "early"),
    [
        (LSTM, (4, 0, 0, 4, 4, 2, 4), ("i", "f", "g", "o")),
        (GRU, (3, 1, 0, 3, 4, 1, 4), ("r", "z", "n")),
        (GRU_RESET_BEFORE, (3, 0, 1, 2, 3, 1, 3), ("r", "z")),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_counts_and_early_gates(cell, counts, early):
    assert counts == (cell.G, cell.A, cell.L, cell.E, cell.S, cell.N, cell.K)
    assert cell.early == early
    assert cell.varying == cell.N


def test_constant_states_are_counted_and_part_of_the_key():
    plain, constant = made(), made(constant=("c", "p"))
    assert (plain.N, plain.varying) == (3, 3)
    assert (constant.N, constant.varying) == (3, 1)
    assert plain.key != constant.key != made(constant=("p",)).key


@pytest.mark.parametrize("constant", [("c",), ("p", "c"), ("h", "c", "p"), ("q",)])
def test_constant_states_are_the_last_and_not_h(constant):
    with pytest.raises(ValueError, match="cell made: constant states are the last of"):
        made(constant=constant)
