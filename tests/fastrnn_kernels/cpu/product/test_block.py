"""Register blocks against NumPy, whatever the host's vector width."""

from functools import cache

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.instruction_set import MAX_ROWS
from fastrnn_kernels.cpu.isa.llvm import lanes
from fastrnn_kernels.cpu.product.block import register_block
from fastrnn_kernels.cpu.product.tile import multiply, next_rows
from fastrnn_kernels.cpu.product.weights import lanes_of

pytestmark = pytest.mark.usefixtures("instruction_set")


def operands(rows, vectors, count, dtype):
    rng = np.random.default_rng(rows * 100 + vectors)
    width = vectors * lanes_of(np.dtype(dtype))
    a = rng.normal(size=(rows, count)).astype(dtype)
    panel = rng.normal(size=(count, width)).astype(dtype)
    init = rng.normal(size=(rows, width)).astype(dtype)
    return a, panel, init, width


@pytest.fixture(scope="module")
def compiled():
    """One product compiled serves any count: by its size and the instruction set it is for."""

    @cache
    def run(rows, vectors, isa):
        product = register_block(rows, vectors)

        @njit
        def run(out, init, a, rows_at, panel, count, width):
            product(out, 1, width, init, 0, width, a, rows_at, 1, 1, panel, 0, width, count)

        return run

    return run


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "vectors"), [(1, 1), (1, 4), (3, 3), (6, 4), (2, 6)])
def test_block_is_a_product(rows, vectors, count, dtype, compiled):
    a, panel, init, width = operands(rows, vectors, count, dtype)
    run = compiled(rows, vectors, current().name)
    out = np.full(rows * width + 2, np.nan, dtype)
    rows_at = np.arange(-1, rows, dtype=np.int64) * count  # the block begins at its second
    run(out, init.ravel(), a.ravel(), rows_at, panel.ravel(), count, width)
    expected = init.astype(np.float64) + a.astype(np.float64) @ panel.astype(np.float64)
    # Each sum of `count` rounded products: a few units of the largest partial sum.
    np.testing.assert_allclose(
        out[1:-1].reshape(rows, width), expected, atol=20 * np.finfo(dtype).eps
    )
    assert np.isnan(out[[0, -1]]).all(), "written outside of the block"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_block_reads_columns_of_a_by_its_step(dtype):
    a, panel, _, width = operands(3, 2, 5, dtype)
    product = register_block(3, 2)

    @njit
    def run(out, a, rows_at, panel, width):
        product(out, 0, width, out, 0, width, a, rows_at, 0, 3, panel, 0, width, 5)

    out = np.zeros((3, width), dtype)
    run(out.ravel(), np.ascontiguousarray(a.T).ravel(), np.arange(3), panel.ravel(), width)
    # Five rounded products of order 1, and as many in NumPy's own sum.
    np.testing.assert_allclose(out, a @ panel, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_has_the_same_bits_in_every_block(dtype):
    count, vectors = 37, 4
    a, panel, _, width = operands(MAX_ROWS, vectors, count, dtype)
    product = multiply(vectors)

    @njit
    def run(rows, first, out, a, rows_at, panel, count, width):
        product(rows, out, 0, width, out, 0, width, a, rows_at, first, 1, panel, 0, width, count)

    rows_at = np.arange(MAX_ROWS, dtype=np.int64) * count
    alone = np.zeros((MAX_ROWS, width), dtype)
    for r in range(MAX_ROWS):
        run(1, r, alone[r], a.ravel(), rows_at, panel.ravel(), count, width)
    for rows in range(2, current().rows(vectors) + 1):
        together = np.zeros((rows, width), dtype)
        run(rows, 0, together.ravel(), a.ravel(), rows_at, panel.ravel(), count, width)
        np.testing.assert_array_equal(together, alone[:rows])


def test_tiles_cover_all_rows_and_none_is_larger_than_the_largest():
    for largest in range(1, MAX_ROWS + 1):
        for left in range(1, 60):
            sizes, remaining = [], left
            while remaining:
                sizes.append(next_rows.py_func(remaining, largest))
                remaining -= sizes[-1]
            assert sum(sizes) == left
            assert min(sizes) >= 1
            assert max(sizes) <= largest


def test_lanes():
    @njit
    def run(x):
        return lanes(x)

    for dtype in (np.float32, np.float64):
        assert run(np.zeros(1, dtype)) == lanes_of(np.dtype(dtype))
