"""Symbols: what is written twice is one, what is rewritten is the same, what is no equation."""

import math

import numpy as np
import pytest

from fastrnn_kernels.equations import functions as f
from fastrnn_kernels.equations.errors import EquationError
from fastrnn_kernels.equations.symbols import Graph


@pytest.fixture
def graph():
    return Graph()


@pytest.fixture
def x(graph):
    return graph.input("state", "x")


@pytest.fixture
def y(graph):
    return graph.input("state", "y")


def test_what_is_written_twice_is_one(x, y):
    assert f.tanh(x + y) is f.tanh(y + x)
    assert x * y is y * x
    assert x - y is not y - x
    assert x / y is not y / x


def test_what_is_exactly_the_same_is_rewritten(graph, x, y):
    assert x + 0 is x
    assert 0 + x is x
    assert x * 1 is x
    assert x / 1 is x
    negative = -x
    assert -negative is x
    assert x - (-y) is x + y
    assert x + (-y) is x - y
    assert (-x) * y is -(x * y)
    assert (x * 0).is_number(0)
    assert f.tanh(-x) is -f.tanh(x)
    assert x / 4 is x * 0.25
    assert (graph.constant(2) + 3).is_number(5)
    assert f.exp(graph.constant(0)).is_number(1)
    assert f.where(x <= y, x, x) is x


def test_identities_of_sigmoid_and_tanh(x):
    assert 1 / (1 + f.exp(-x)) is f.sigmoid(x)
    assert 2 * f.sigmoid(2 * x) - 1 is f.tanh(x)
    assert f.log(f.sigmoid(x)) is -f.softplus(-x)


def test_what_is_only_nearly_the_same_stays_but_in_derivatives(graph, x, y):
    z = graph.input("state", "z")
    assert (x * z + y * z).op == "add"
    graph.factors = True
    assert x * z + y * z is (x + y) * z
    assert x * z - z * y is (x - y) * z
    assert (2 * x) * 3 is 6 * x


def test_zeros_keep_their_signs(graph):
    assert graph.constant(0.0) is not graph.constant(-0.0)


def test_powers_are_products(x):
    assert x**1 is x
    assert x**2 is x * x
    assert x**3 is (x * x) * x
    assert x**4 is x**2 * x**2
    with pytest.raises(EquationError, match=r"write sqrt"):
        x**0.5


def test_numbers_of_numpy_are_numbers(graph, x):
    assert np.float64(2) * x is 2 * x
    assert np.float32(0.5) + x is 0.5 + x
    assert np.int64(3) - x is 3 - x


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x: x if x else 0, r"write where\(condition, a, b\)"),
        (lambda x: x <= 0 and x, r"write where\(condition, a, b\)"),
        (lambda x: max(x, 0), r"minimum or maximum"),
        (lambda x: math.tanh(x), r"functions of math know nothing of it"),
        (lambda x: np.tanh(x), r"np\.tanh knows no symbols"),
        (lambda x: np.where(x, 1, 2), r"np\.where knows no symbols"),
        (lambda x: np.eye(2) @ x, r"no products of matrices"),
        (lambda x: np.dot(np.eye(2), x), r"no products of matrices"),
        (lambda x: x * np.ones(3), r"name it in per_unit"),
        (lambda x: x[0], r"no elements"),
        (lambda x: x == 0, r"a <= b"),
        (lambda x: x % 2, r"no derivative"),
        (lambda x: x + "1", r"str is no number"),
        (lambda x: x + True, r"bool is no number"),
        (lambda x: x / 0, r"divide by 0"),
        (lambda x: f.where(True + x, 1, 2), r"wanted a comparison|bool"),
        (lambda x: f.where((x <= 0) & (x >= 1), 1, 2), r"not joined"),
        (lambda x: f.tanh("x"), r"tanh of a str"),
    ],
)  # fmt: skip
def test_what_is_no_equation_says_what_to_write(x, wrong, told):
    with pytest.raises(EquationError, match=told) as error:
        wrong(x)
    assert "test_symbols.py, line" in str(error.value)  # the user's own


def test_symbols_of_another_cell_are_refused(x):
    with pytest.raises(EquationError, match="another cell"):
        x + Graph().input("state", "x")


def value_of(symbol, **given):
    """What a symbol is worth, in plain Python."""
    from fastrnn_kernels.cells import functions as kernels

    def worth(one):
        if one.op == "number":
            return one.what
        if one.op == "input":
            return given[one.what[1]]
        args = [worth(arg) for arg in one.args]
        plain = {
            "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
            "div": lambda a, b: a / b, "neg": lambda a: -a,
        }  # fmt: skip
        return (plain.get(one.op) or getattr(kernels, one.op))(*args)

    return worth(symbol)


@pytest.mark.parametrize(
    ("function", "truth"),
    [
        (lambda x, y: f.where(x <= y, x, 7 + y), lambda x, y: x if x <= y else 7 + y),
        (lambda x, y: f.where(x < y, x, 7 + y), lambda x, y: x if x < y else 7 + y),
        (lambda x, y: f.where(x >= y, x, 7 + y), lambda x, y: x if x >= y else 7 + y),
        (lambda x, y: f.where(x > y, x, 7 + y), lambda x, y: x if x > y else 7 + y),
        (lambda x, y: f.minimum(x, y), np.minimum),
        (lambda x, y: f.maximum(x, y), np.maximum),
        (lambda x, y: f.maximum(x, 0.5), lambda x, y: np.maximum(x, 0.5)),
        (lambda x, y: f.minimum(0.5, x), lambda x, y: np.minimum(x, 0.5)),
        (lambda x, y: f.clip(x, -1, 1), lambda x, y: np.clip(x, -1, 1)),
        (lambda x, y: f.hard_tanh(x), lambda x, y: np.clip(x, -1, 1)),
        (lambda x, y: f.hard_sigmoid(x), lambda x, y: np.clip(x / 6 + 0.5, 0, 1)),
        (lambda x, y: f.hard_sigmoid(x, 0.2), lambda x, y: np.clip(x * 0.2 + 0.5, 0, 1)),
        (lambda x, y: f.leaky_relu(x), lambda x, y: x * 0.01 if x <= 0 else x),
        (lambda x, y: abs(x) - y, lambda x, y: abs(x) - y),
    ],
)
@pytest.mark.parametrize("x_value", [-3.0, -0.5, 0.0, 0.5, 2.0, math.inf, math.nan])
@pytest.mark.parametrize("y_value", [-0.5, 0.0, 2.0, math.nan])
def test_choices(x, y, function, truth, x_value, y_value):
    found = value_of(function(x, y), x=x_value, y=y_value)
    assert found == pytest.approx(truth(x_value, y_value), nan_ok=True, rel=1e-15)
