"""bfloat16: rounding, pairs, and the products of pairs."""

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.bfloat16 import bits as rounded
from fastrnn_kernels.bfloat16 import values as widened
from fastrnn_kernels.cpu.product.block import CHUNK, register_block
from fastrnn_kernels.cpu.product.pairs import keeper, paired, row_keeper
from fastrnn_kernels.cpu.product.weights import lanes_of

pytestmark = pytest.mark.usefixtures("instruction_set")


def float_lanes():
    return lanes_of(np.dtype(np.float32))


def interesting():
    x = np.random.default_rng(0).normal(size=997).astype(np.float32)
    x *= np.float32(10.0) ** np.random.default_rng(1).integers(-38, 38, 997).astype(np.float32)
    # ties, which go to even; the step to infinity; NaN of which only the lowest bit says so
    special = np.array(
        [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0xFF800000, 0x7F800001, 0x80000000, 1], np.uint32
    )
    return np.concatenate([x, special.view(np.float32)])


@pytest.mark.smoke
def test_rounding_goes_to_the_nearest():
    x = interesting()
    found = widened(rounded(x))
    finite = np.isfinite(x) & np.isfinite(found)
    # Half a unit in the last of 8 bits, or of the smallest normal number's.
    unit = np.maximum(np.abs(x[finite]), np.finfo(np.float32).tiny) * 2.0**-8
    assert (np.abs(found[finite].astype(np.float64) - x[finite]) <= unit).all()
    bits = rounded(x)[-7:]
    assert bits.tolist()[:4] == [0x3F80, 0x3F82, 0x7F80, 0xFF80]
    assert np.isnan(widened(bits[4:5]))
    assert bits.tolist()[5:] == [0x8000, 0]


def test_the_kernels_round_as_packing_does_and_clear_what_is_past_the_end():
    keep_row = row_keeper(2)

    @njit
    def run(rows, source, many, lanes):
        keep_row(rows, 0, source, 0, many, lanes)

    x, lanes = interesting(), float_lanes()
    rows = np.full((x.size + lanes) // 2 + lanes, -1, np.int32)
    run(rows, x, x.size, lanes)
    halves = rows.view(np.uint16)
    np.testing.assert_array_equal(halves[: x.size], rounded(x))
    padded = -(-x.size // lanes) * lanes
    assert (halves[x.size : padded] == 0).all()
    assert (halves[padded:] == 0xFFFF).all()


def test_plain_rows_are_kept_as_they_are():
    keep_row = row_keeper(1)

    @njit
    def run(rows, source, many, lanes):
        keep_row(rows, 0, source, 0, many, lanes)

    x = np.arange(3.0 * float_lanes())
    rows = np.zeros_like(x)
    run(rows, x, x.size, lanes_of(x.dtype))
    np.testing.assert_array_equal(rows, x)
    assert keeper(1) is not keeper(2)


@pytest.mark.parametrize("K", [1, 2, 7, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize(("rows", "vectors"), [(1, 4), (3, 1), (6, 4)])
def test_block_of_pairs_is_a_product(rows, vectors, K):
    rng = np.random.default_rng(K)
    width, pairs = vectors * float_lanes(), (K + 1) // 2
    a = rng.normal(size=(rows, K)).astype(np.float32)
    panel = rng.normal(size=(K, width)).astype(np.float32)
    init = rng.normal(size=(rows, width)).astype(np.float32)
    product = register_block(rows, vectors)

    @njit
    def run(out, init, a, rows_at, panel, pairs, width):
        product(out, 0, width, init, 0, width, a, rows_at, 0, 1, panel, 0, width, pairs)

    halves = np.zeros((rows, 2 * pairs), np.uint16)
    halves[:, :K] = rounded(a)
    out = np.full((rows, width), np.nan, np.float32)
    rows_at = np.arange(rows, dtype=np.int64) * pairs
    run(
        out.ravel(), init.ravel(), halves.view(np.int32).ravel(), rows_at,
        paired(panel.ravel(), K, width), pairs, width,
    )  # fmt: skip
    factors = widened(rounded(a)).astype(np.float64), widened(rounded(panel)).astype(np.float64)
    # Products of bfloat16 are exact in float32; what is left are the sums' roundings.
    np.testing.assert_allclose(out, init + factors[0] @ factors[1], atol=2e-6 * np.sqrt(K) * 4)
