"""Activations by name: as Python runs them against NumPy's, at ordinary values and at the ends.

What is compiled runs in `fastrnn/onnx/test_onnx_ops.py` and `fastrnn/models/test_variants.py`.
"""

import math

import numpy as np
import pytest

import fastrnn_kernels.cpu  # noqa: F401  (registers the CPU's forms of the functions)
from fastrnn_kernels.equations.activations import NAMES, activation
from fastrnn_kernels.equations.check import check
from fastrnn_kernels.equations.variants import gru, lstm, rnn

PARAMETERS = {
    "elu": (1.5,), "hard_sigmoid": (0.25, 0.5), "leaky_relu": (0.125,), "linear": (0.5, 0.25),
    "tanh": (2.0, 0.5), "thresholded_relu": (0.5,),
}  # fmt: skip
ERF = np.vectorize(math.erf, otypes=[float])


def hard_sigmoid(x, slope=1 / 6, offset=0.5):
    return np.clip(slope * x + offset, 0, 1)


WANTED = {
    "tanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(x)),
    "exponential": np.exp,
    "gelu": lambda x: x * (1 + ERF(x / np.sqrt(2))) / 2,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": lambda x: x * hard_sigmoid(x),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x, slope: np.where(x >= 0, x, slope * x),
    "linear": lambda x, slope, offset: slope * x + offset,
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: 1.0507009873554805 * np.where(x >= 0, x, 1.6732632423543772 * np.expm1(x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "thresholded_relu": lambda x, theta: np.where(x >= theta, x, 0),
}


def cell(name):
    return rnn(activation(name, *PARAMETERS.get(name, ())), None)


def plain(name):
    forward = cell(name).forward.py_func
    return lambda x: forward((x,), (x,))[0][0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_values(name, dtype):
    x = np.r_[np.linspace(-9, 9, 301), -1e-3, 1e-3, -80, 80, 0].astype(dtype)
    with np.errstate(over="ignore"):
        found = [plain(name)(value) for value in x]
        wanted = WANTED[name](x.astype(np.float64), *PARAMETERS.get(name, ()))
    assert {type(value) for value in found} == {dtype}
    # Of ten operations at most, each rounds by half a unit; those near 0 are sums of others.
    eps = np.finfo(dtype).eps
    scale = 1 + np.abs(x) if name in ("gelu", "mish", "hard_silu") else 1  # products with such
    assert np.all(np.abs(found - wanted) <= (10 * np.abs(wanted) + 2 * scale) * eps)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name):
    assert check(cell(name)).passed


@pytest.mark.parametrize("name", NAMES)
def test_nan_passes(name):
    assert np.isnan(plain(name)(np.float64(np.nan)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("thresholded_relu", 0, np.inf),
        ("hard_sigmoid", 0, 1),
        ("elu", -1.5, np.inf),
        ("softplus", 0, np.inf),
        ("tanh", -2, 2),
        ("relu6", 0, 6),
    ],
)
def test_infinities(name, low, high):
    with np.errstate(all="ignore"):
        assert plain(name)(np.float64(-np.inf)) == low
        assert plain(name)(np.float64(np.inf)) == high


def test_the_threshold_itself_passes():
    """As ONNX's text has it: x if x >= alpha."""
    assert plain("thresholded_relu")(np.float64(0.5)) == 0.5
    assert plain("thresholded_relu")(np.nextafter(0.5, 0)) == 0


@pytest.mark.smoke
def test_clipped():
    forward = rnn(activation("linear"), 0.5).forward.py_func
    values = (-2, -0.5, 0.25, 0.75)
    found = [forward((np.float32(a),), (np.float32(0),))[0][0] for a in values]
    assert found == [-0.5, -0.5, 0.25, 0.5]
    assert np.isnan(forward((np.float32(np.nan),), (np.float32(0),))[0][0])


def test_more_parameters_than_it_has():
    with pytest.raises(ValueError, match="elu has 1 parameters, and 2 came"):
        activation("elu", 1.0, 2.0)
    with pytest.raises(KeyError):
        activation("swish")


def test_derivatives_of_cells():
    """With a bound, peepholes and coupled gates; a coupled cell has no gate f."""
    bound = 1.5
    squash, soft = activation("hard_sigmoid"), activation("softsign")
    for one in (
        lstm(squash, soft, activation("mish"), bound, True, False),
        lstm(squash, soft, soft, None, True, True),
        gru(squash, activation("relu"), bound, True),
        gru(activation("sigmoid"), activation("relu"), None, False),
    ):
        assert check(one).passed
    coupled = lstm(squash, soft, soft, None, True, True)
    assert coupled.gates == ("i", "g", "o")
    assert coupled.per_unit == ("p_i", "p_o")
