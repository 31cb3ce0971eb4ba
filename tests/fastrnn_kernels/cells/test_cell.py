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
    assert cell.Q == 0


def test_gates_without_an_h_part():
    cell = made(gates=("a", "b", "c"), apart=("c",), x_only=("b",))
    assert (cell.G, cell.X, cell.GH, cell.E, cell.S) == (3, 1, 2, 2, 4)
    assert cell.recurrent == ("a", "c")
    assert cell.sums == ("b", "c_x", "a", "c_h")
    assert (cell.x_gates, cell.h_gates) == (("b", "c", "a"), ("a", "c"))
    assert cell.key != made(gates=("a", "b", "c"), apart=("c",)).key
    assert made(x_only=("a",)).key != made(per_unit=("a",)).key


def test_a_gate_without_an_h_part_has_none_apart():
    with pytest.raises(ValueError, match="gates that are x_only have no h-part"):
        made(apart=("a",), x_only=("a",))


def test_parameters_per_unit_are_counted_and_part_of_the_key():
    plain, other = made(), made(per_unit=("p_a", "p_b"))
    assert (plain.N, plain.Q) == (3, 0)
    assert (other.N, other.Q) == (3, 2)
    assert plain.key != other.key != made(per_unit=("p_b", "p_a")).key


@pytest.mark.parametrize("per_unit", [("p", "p"), ("p", "weight_hh"), ("bias_ih",)])
def test_parameters_per_unit_have_names_of_their_own(per_unit):
    with pytest.raises(ValueError, match=r"cell made: per_unit is .*, wanted names that differ"):
        made(per_unit=per_unit)
