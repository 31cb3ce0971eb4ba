"""Vectors against NumPy, whatever the host's vector width."""

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cpu.isa.vector import (
    absolute,
    copysign,
    fma,
    like,
    load,
    load_from_two,
    load_part,
    store,
    store_part,
    where_at_most,
)
from fastrnn_kernels.cpu.product.weights import lanes_of

pytestmark = pytest.mark.usefixtures("instruction_set")

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def values(count, dtype):
    return np.random.default_rng(count).normal(size=count).astype(dtype)


@DTYPES
def test_arithmetic_of_vectors_and_numbers(dtype):
    load_two, store_all = load(2), store(8)

    @njit(error_model="numpy")
    def run(x, out, width):
        a, b = load_two(x, 0, width)
        store_all(out, 0, width, (a + b, a - 2, 3 * b, a / b, -a, fma(a, b, 0.5), absolute(a), 7))

    width = lanes_of(np.dtype(dtype))
    x, out = values(2 * width, dtype), np.zeros(8 * width, dtype)
    run(x, out, width)
    a, b = x.reshape(2, width)
    expected = [a + b, a - 2, 3 * b, a / b, -a, a * b + 0.5, np.abs(a), np.full_like(a, 7)]
    # The fused multiply-add rounds once, NumPy's two operations twice.
    np.testing.assert_allclose(
        out.reshape(8, width), np.stack(expected), rtol=4 * np.finfo(dtype).eps
    )


@DTYPES
def test_choice_sign_and_filling(dtype):
    load_two, store_three = load(2), store(3)

    @njit
    def run(x, out, width):
        a, b = load_two(x, 0, width)
        store_three(
            out, 0, width, (where_at_most(a, b, a, 9), copysign(a, b), like(a, 4) + like(a, 1))
        )

    width = lanes_of(np.dtype(dtype))
    x, out = values(2 * width, dtype), np.zeros(3 * width, dtype)
    x[0], x[width - 1], x[2 * width - 1] = np.nan, 1, 1
    run(x, out, width)
    a, b = x.reshape(2, width)
    expected = [np.where(a <= b, a, 9), np.copysign(a, b), np.full_like(a, 5)]
    np.testing.assert_array_equal(out.reshape(3, width), np.stack(expected).astype(dtype))


@DTYPES
def test_parts_touch_only_their_lanes(dtype):
    width = lanes_of(np.dtype(dtype))
    store_two, store_whole, load_some = store_part(2), store(1), load_part()

    @njit
    def run(x, out, loaded, many, width):
        value = load_some(x, x.size - many, many)
        store_whole(loaded, 0, 0, (value,))
        store_two(out, 1, width, many, (value, value + value))

    for many in range(1, width + 1):
        x = values(width + 3, dtype)
        out, loaded = np.full(2 * width + 2, -1, dtype), np.full(width, -1, dtype)
        run(x, out, loaded, many, width)
        given = x[x.size - many :]
        np.testing.assert_array_equal(loaded, np.pad(given, (0, width - many)))
        rows = out[1:-1].reshape(2, width)
        np.testing.assert_array_equal(rows[:, :many], np.stack([given, given + given]))
        assert (rows[:, many:] == -1).all()
        assert (out[[0, -1]] == -1).all()


@pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 0), (1, 2)])
def test_vectors_of_two_arrays_come_in_one_tuple(first, second):
    load_both, store_all = load_from_two(first, second), store(first + second)

    @njit
    def run(a, b, out, width):
        store_all(out, 0, width, load_both(a, 1, width, b, 2, width))

    width = lanes_of(np.dtype(np.float64))
    a, b, out = np.arange(3.0 * width), -np.arange(3.0 * width), np.zeros((first + second) * width)
    run(a, b, out, width)
    expected = np.concatenate([a[1 : 1 + first * width], b[2 : 2 + second * width]])
    np.testing.assert_array_equal(out, expected)
