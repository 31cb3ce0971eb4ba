"""Two registers as one value against each of them alone."""

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cells.functions import erf, exp, log1p, sigmoid, sin, tanh, where_at_most
from fastrnn_kernels.cpu.isa.twins import (
    first_of,
    load_twins_from_two,
    next_vector,
    second_of,
    store_twins,
)
from fastrnn_kernels.cpu.isa.vector import load_from_two, store
from fastrnn_kernels.cpu.product.weights import lanes_of

pytestmark = pytest.mark.usefixtures("instruction_set")


@njit
def _several(a, b):
    """One of each kind of operation that cells are made of, and a number among the results."""
    chosen, many = where_at_most(a, b, a * b, a / b), (erf(b), log1p(a * a), sin(a))
    return sigmoid(a), tanh(b), exp(a), chosen, -a + 2, 7, *many


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_of_two_is_computed_as_if_alone(dtype):
    load_one, store_one = load_from_two(1, 1), store(9)
    load_both, store_both = load_twins_from_two(1, 1), store_twins(9)

    @njit(error_model="numpy")
    def alone(x, out, at, to, width):
        a, b = load_one(x, at, 0, x, at + width, 0)
        store_one(out, to, 2 * width, _several(a, b))

    @njit(error_model="numpy")
    def together(x, out, width):
        a, b = load_both(x, 3, 5, 0, x, 3 + width, 5 + width, 0)
        store_both(out, 0, width, 2 * width, _several(a, b))

    width = lanes_of(np.dtype(dtype))
    x = 3 * np.random.default_rng(0).normal(size=2 * width + 5).astype(dtype)
    wanted, found = np.zeros(18 * width, dtype), np.zeros(18 * width, dtype)
    alone(x, wanted, 3, 0, width)
    alone(x, wanted, 5, width, width)
    together(x, found, width)
    np.testing.assert_array_equal(found, wanted)
    assert np.unique(found.reshape(9, -1)[0]).size > width  # two different registers


def test_halves_of_tuples_keep_their_order():
    load_both, store_one = load_twins_from_two(1, 1), store(2)

    @njit
    def run(x, out, width):
        both = load_both(x, 0, width, 0, x, 2 * width, 3 * width, 0)
        store_one(out, 0, width, second_of(both))
        store_one(out, 2 * width, width, first_of(both))

    width = lanes_of(np.dtype(np.float64))
    x, out = np.arange(4.0 * width), np.zeros(4 * width)
    run(x, out, width)
    np.testing.assert_array_equal(out.reshape(4, width), x.reshape(4, width)[[1, 3, 0, 2]])


def test_vectors_follow_one_another_row_by_row():
    place, seen = (0, 0), []
    for _ in range(5):
        seen.append(place)
        place = next_vector.py_func(*place, 2)
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
