"""Exponents, mantissas and signs by the bits of floats."""

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cpu.isa.bits import (
    exponent,
    mantissa,
    negated_where_negative,
    negated_where_odd,
    two_over_power,
)
from fastrnn_kernels.cpu.isa.vector import load, store
from fastrnn_kernels.cpu.product.weights import lanes_of

pytestmark = [
    pytest.mark.usefixtures("instruction_set"),
    pytest.mark.parametrize("dtype", [np.float32, np.float64]),
]


def around_one(dtype, width):
    """The square roots of 1/2 and 2 with what is next to them, times powers."""
    ends = np.sqrt(np.array([0.5, 2], dtype))
    numbers = np.concatenate([ends, np.nextafter(ends, 0), np.nextafter(ends, 2), [1, 1.3]])
    info = np.finfo(dtype)
    numbers = np.ldexp(numbers, np.array([[0], [1], [-7], [info.maxexp - 1], [info.minexp + 1]]))
    numbers = numbers[np.isfinite(numbers)].astype(dtype)
    return np.resize(numbers, -(-numbers.size // width) * width)


def test_a_number_is_its_mantissa_times_a_power(dtype):
    load_one, store_three = load(1), store(3)

    @njit
    def run(x, out, width):
        for k in range(0, x.size, width):
            value = load_one(x, k, 0)[0]
            m = mantissa(value)
            store_three(out, k, x.size, (m, exponent(value), two_over_power(value, m)))

    width = lanes_of(np.dtype(dtype))
    x = around_one(dtype, width)
    out = np.zeros((3, x.size), dtype)
    run(x, out.ravel(), width)
    m, k, two_over = out
    np.testing.assert_array_equal(np.ldexp(m, k.astype(int)), x)
    assert (m >= np.sqrt(dtype(0.5))).all()
    assert (m <= np.sqrt(dtype(2))).all()
    wanted = np.ldexp(dtype(2), -k.astype(int))
    wanted[wanted < np.finfo(dtype).tiny] = 0
    np.testing.assert_array_equal(two_over, wanted)


def test_odd_integers_and_negative_numbers_turn_signs(dtype):
    load_two, store_two = load(2), store(2)
    shift = dtype(1.5 * 2 ** np.finfo(dtype).nmant)

    @njit
    def run(x, out, width):
        value, n = load_two(x, 0, width)
        turned = negated_where_odd(value, n + shift), negated_where_negative(value, n)
        store_two(out, 0, width, turned)

    width = lanes_of(np.dtype(dtype))
    value, n = np.linspace(-2, 3, width).astype(dtype), np.arange(-2, width - 2).astype(dtype)
    out = np.zeros(2 * width, dtype)
    run(np.concatenate([value, n]), out, width)
    np.testing.assert_array_equal(out[:width], np.where(n % 2 == 0, value, -value))
    np.testing.assert_array_equal(out[width:], np.where(n < 0, -value, value))
