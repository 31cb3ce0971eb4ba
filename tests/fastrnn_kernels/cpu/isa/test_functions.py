"""exp, sigmoid and tanh of the CPU against the same in a wider float type."""

import numpy as np
import pytest
from numba import njit

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cpu.isa.host import for_each
from fastrnn_kernels.cpu.isa.vector import load, store
from fastrnn_kernels.cpu.product.weights import lanes_of

WIDER = {np.float32: np.float64, np.float64: np.longdouble}
TRUTH = {
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
#: Units in the last place. Measured: 0.93, 1.96 and 2.24 in float32, 1.00, 1.98 and 2.27 in
#: float64; what is left above 0.5 comes from the quotients' two roundings.
BOUND = {"exp": 1.1, "sigmoid": 2.5, "tanh": 2.5}


def over(name, values):
    """The compiled function over an array, a vector at a time."""
    vectors, _ = loops(name)
    lanes = lanes_of(values.dtype)
    padded = np.zeros(-(-values.size // lanes) * lanes, values.dtype)
    padded[: values.size] = values
    result = np.full_like(padded, 7)
    vectors(padded, result, lanes)
    return result[: values.size]


@for_each
def loops(name):
    function, load_one, store_one = getattr(functions, name), load(1), store(1)

    @njit(error_model="numpy")
    def vectors(x, y, lanes):
        for k in range(0, x.size, lanes):
            store_one(y, k, 0, (function(load_one(x, k, 0)[0]),))

    @njit(error_model="numpy")
    def alone(x, y):
        for k in range(x.size):
            y[k] = function(x[k])

    return vectors, alone


def every_exponent(dtype):
    """Both signs of mantissas of every exponent, denormals among them."""
    info = np.finfo(dtype)
    smallest = info.minexp - info.nmant
    exponents = np.arange(smallest, info.maxexp)
    mantissas = 1 + np.random.default_rng(0).random((64, 1))
    with np.errstate(over="ignore", under="ignore"):
        x = np.ldexp(mantissas, exponents).astype(dtype).ravel()
    x = x[np.isfinite(x)]
    return np.concatenate([x, -x, np.linspace(-12, 12, 20_001, dtype=dtype)])


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(TRUTH))
def test_error_is_a_few_units_in_the_last_place(name, dtype):
    wider = WIDER[dtype]
    if np.finfo(wider).nmant <= np.finfo(dtype).nmant:
        pytest.skip("this platform has no float type wider than float64 to compare with")
    x = every_exponent(dtype)
    with np.errstate(over="ignore", under="ignore"):
        truth = TRUTH[name](x.astype(wider))
        rounded = truth.astype(dtype)
    result = over(name, x)
    # Below the smallest normal number a unit is no longer relative; there absolute counts.
    unit = np.spacing(np.maximum(np.abs(rounded), np.finfo(dtype).tiny))
    normal = np.isfinite(rounded)
    error = np.abs(result[normal].astype(wider) - truth[normal]) / unit[normal]
    assert error.max() < BOUND[name], (x[normal][error.argmax()], error.max())
    np.testing.assert_array_equal(result[~normal], rounded[~normal])


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_is_odd_to_the_bit(dtype):
    x = every_exponent(dtype)
    bits = np.uint32 if dtype == np.float32 else np.uint64
    np.testing.assert_array_equal(over("tanh", -x).view(bits), (-over("tanh", x)).view(bits))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exp", [np.inf, 0, np.nan, 1, 1]),
        ("sigmoid", [1, 0, np.nan, 0.5, 0.5]),
        ("tanh", [1, -1, np.nan, 0.0, -0.0]),
        ("relu", [np.inf, 0, np.nan, 0.0, -0.0]),
    ],
)
def test_infinities_nan_and_zeros(name, expected, dtype):
    result = over(name, np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype))
    np.testing.assert_array_equal(result, np.array(expected, dtype))
    if name == "tanh":
        assert np.signbit(result[4])
        assert not np.signbit(result[3])


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "relu", "one", "zero"])
def test_plain_python_form_agrees_and_keeps_the_type(name, dtype):
    x = np.array([-3.5, -0.25, 0.0, 1e-3, 2.0], dtype)
    plain = [getattr(functions, name)(value) for value in x]
    assert all(type(value) is dtype for value in plain)
    # The compiled form may be 2.5 units off (see BOUND), the plain one another half.
    np.testing.assert_allclose(over(name, x), plain, rtol=3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [*sorted(TRUTH), "relu"])
def test_a_value_is_the_same_in_a_vector_and_alone(name, dtype):
    """Of this host: numbers alone are of no instruction set, kernels compute none."""
    x = every_exponent(dtype)
    x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)])
    _, alone = loops(name)
    one_by_one = np.empty_like(x)
    alone(x, one_by_one)
    np.testing.assert_array_equal(over(name, x), one_by_one)
