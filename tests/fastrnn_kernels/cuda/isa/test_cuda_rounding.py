"""Types of tensor cores: float32 values rounded as the GPU does."""

import numpy as np
import pytest
import torch

import compilers

compilers.need("numba_cuda")
from fastrnn_kernels.cuda.isa.rounding import bits, rounded  # noqa: E402

pytestmark = pytest.mark.compilers


def some():
    random = np.random.default_rng(3)
    values = random.standard_normal(4000) * 10.0 ** random.integers(-30, 30, 4000)
    # Halves between two neighbours, of each type, and what is special.
    halves = (1 + np.arange(40) * 2.0**-12).tolist() + (1 + np.arange(40) * 2.0**-9).tolist()
    ends = [0.0, -0.0, np.inf, -np.inf, 3.4028235e38, 65520.0, 1e-45, -1e-40]
    return np.array([*values, *halves, *ends, *(-np.array(halves))], np.float32)


@pytest.mark.parametrize("compute", ["bfloat16", "float16"])
def test_types_of_sixteen_bits_as_torch_rounds(compute):
    array = some()
    wanted = torch.from_numpy(array).to(getattr(torch, compute))
    np.testing.assert_array_equal(
        bits(array, compute), wanted.view(torch.int16).numpy().view(np.uint16)
    )
    np.testing.assert_array_equal(rounded(array, compute), wanted.float().numpy())


def test_tf32_is_the_nearest_of_ten_bits_and_of_two_the_farther_from_zero():
    array = some()
    found = rounded(array, "tf32")
    finite = np.isfinite(array) & (np.abs(array) < 3.4e38) & (np.abs(array) > 1e-37)
    value = array[finite].astype(float)
    unit = 2.0 ** (np.floor(np.log2(np.abs(value))) - 10)
    wanted = np.sign(value) * np.floor(np.abs(value) / unit + 0.5) * unit
    np.testing.assert_array_equal(found[finite], wanted)
    np.testing.assert_array_equal(found[~np.isfinite(array)], array[~np.isfinite(array)])
    assert not np.any(bits(array[finite], "tf32") & 0x1FFF)


@pytest.mark.parametrize("compute", ["tf32", "bfloat16", "float16"])
def test_nan_stays(compute):
    array = np.array([0x7FC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(rounded(array, compute)).all()
