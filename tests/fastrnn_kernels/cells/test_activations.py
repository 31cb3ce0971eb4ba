"""Activations by name: their plain form against NumPy's, at ordinary values and at the ends."""

import numpy as np
import pytest

from fastrnn_kernels.cells.activations import NAMES, Activation, clipped, function_of
from onnx_reference import ACTIVATIONS

PARAMETERS = {"affine": (0.5, 0.25), "leakyrelu": (0.125, None), "thresholdedrelu": (0.5, None)}
PARAMETERS |= {"scaledtanh": (2.0, 0.5), "hardsigmoid": (0.25, 0.5), "elu": (1.5, None)}
WANTED = {name.lower(): function for name, function in ACTIVATIONS.items()}


def plain(name):
    """As Python runs it, which is what Numba compiles (`fastrnn/onnx/test_onnx_ops.py`)."""
    found = function_of(Activation(name, *PARAMETERS.get(name, ())))
    return getattr(found, "py_func", found)


def test_all_of_them_are_here():
    assert sorted(NAMES) == sorted(WANTED)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_values(name, dtype):
    x = np.r_[np.linspace(-9, 9, 301), -1e-3, 1e-3, -80, 80, 0].astype(dtype)
    found = [plain(name)(value) for value in x]
    assert {type(value) for value in found} == {dtype}
    wanted = WANTED[name](x.astype(np.float64), *PARAMETERS.get(name, (None, None)))
    # Of ten operations at most, each rounds by half a unit; those near 0 are sums of others.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=10 * eps, atol=2 * eps)


@pytest.mark.parametrize("name", NAMES)
def test_nan_passes(name):
    assert np.isnan(plain(name)(np.float64(np.nan)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("thresholdedrelu", 0, np.inf),
        ("hardsigmoid", 0, 1),
        ("elu", -1.5, np.inf),
        ("softplus", 0, np.inf),
        ("scaledtanh", -2, 2),
    ],
)
def test_infinities(name, low, high):
    with np.errstate(all="ignore"):
        assert plain(name)(np.float64(-np.inf)) == low
        assert plain(name)(np.float64(np.inf)) == high


def test_the_threshold_itself_passes():
    """As ONNX's text has it: x if x >= alpha."""
    assert plain("thresholdedrelu")(np.float64(0.5)) == 0.5
    assert plain("thresholdedrelu")(np.nextafter(0.5, 0)) == 0


@pytest.mark.smoke
def test_clipped():
    clip = clipped(0.5).py_func
    assert [clip(np.float32(a)) for a in (-2, -0.5, 0.25, 0.75)] == [-0.5, -0.5, 0.25, 0.5]
    assert np.isnan(clip(np.float32(np.nan)))
    assert clipped(None).py_func(np.float32(9)) == 9
