"""Functions of equations in CUDA kernels: on the simulator, in PTX, and what sin is made of."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from numba import config, cuda, types

import compilers

compilers.need("numba_cuda")
from fastrnn_kernels.cells import functions  # noqa: E402
from fastrnn_kernels.cuda.isa.trigonometric import sin_and_cos  # noqa: E402

pytestmark = pytest.mark.compilers

simulated = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="needs Numba's simulator")
compiled = pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="the simulator has no compiler")

TRUTH = {
    "expm1": math.expm1, "log": math.log, "log1p": math.log1p, "sqrt": math.sqrt, "sin": math.sin,
    "cos": math.cos, "erf": math.erf, "absolute": abs, "number": lambda x: x + 0.2,
}  # fmt: skip


def kernel_of(name):
    function = getattr(functions, name)
    if name == "number":

        def run(x, out):
            i = cuda.grid(1)
            if i < out.size:
                out[i] = x[i] + function(x[i], 0.2)
    else:

        def run(x, out):
            i = cuda.grid(1)
            if i < out.size:
                out[i] = function(x[i])

    return run


@simulated
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TRUTH)
def test_values_on_the_simulator(name, dtype):
    x = np.array([0.25, 1.0, 2.5, 30.0], dtype)
    out = np.full(4, np.nan, dtype)
    cuda.jit(kernel_of(name))[1, 8](x, out)
    # Rounded once or twice from a value of the standard library's.
    wanted = [TRUTH[name](value) for value in x.tolist()]
    np.testing.assert_allclose(out, wanted, rtol=2 * np.finfo(dtype).eps)


@compiled
@pytest.mark.parametrize("name", TRUTH)
def test_kernels_hold_their_own_type_alone(name):
    from fastrnn_kernels.cuda import ptx

    for kind, other in ((types.float32, ".f64"), (types.float64, None)):
        with ptx._no_gpu((9, 0)):
            array = kind[::1]
            text, _ = cuda.compile_ptx(kernel_of(name), types.void(array, array), cc=(9, 0))
        assert f".{kind.name[0]}{kind.bitwidth}" in text
        assert other is None or other not in text
        ptx.assembled(text, (9, 0))


def in_numpy():
    """The library's three operations; a product of two float32 is exact in float64."""
    number, wide = np.float32, np.float64
    return SimpleNamespace(
        fmaf=lambda a, b, c: number(wide(a) * wide(b) + wide(c)),
        rintf=np.rint,
        sinpif=lambda x: number(np.sin(np.pi * wide(x))),
    )


@pytest.mark.parametrize(("which", "truth"), [(0, np.sin), (1, np.cos)])
def test_sin_and_cos_of_float32(which, truth):
    function = sin_and_cos(in_numpy(), lambda function: function)[which]
    random = np.random.default_rng(0)
    near = np.pi / 2 * random.integers(-60_000, 60_000, 3000)
    small = random.normal(size=1000) * 2.0 ** -random.integers(0, 120, 1000)
    x = np.concatenate([near, small, random.uniform(-1e5, 1e5, 3000)]).astype(np.float32)
    found = np.array([function(value) for value in x])
    assert found.dtype == np.float32
    wanted = truth(x.astype(np.float64))
    unit = np.spacing(np.abs(wanted).astype(np.float32))
    # The library's sine of multiples of π is good to one unit, here to half of one.
    assert (np.abs(found - wanted) / unit).max() < 3.5
    far = np.array([np.finfo(np.float32).max, -1e30, 1e9, 5e5], np.float32)
    assert (np.abs([function(value) for value in far]) <= 1).all()
    with np.errstate(invalid="ignore"):
        assert np.isnan(function(np.float32(np.inf)))
    if which == 0:
        assert np.signbit(function(np.float32(-0.0)))
        assert not np.signbit(function(np.float32(0.0)))
