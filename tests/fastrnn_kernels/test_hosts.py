"""Other hosts than this one: the same kernels for narrower vectors and without fused
multiply-add, which LLVM compiles when told to leave features of this host unused."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu import host

PROGRAM = """
import sys
import numpy as np, fastrnn
from fastrnn_kernels.cpu import host
layer = fastrnn.GRU(5, 37, bidirectional=True, seed=0)
x = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
y, _, tape = layer.forward(x, lengths=[9, 1, 0, 4, 9, 8, 2])
gradients = layer.backward(tape, np.ones_like(y))
np.savez(sys.argv[1], y=y, x=gradients.x, bytes=host.VECTOR_BYTES, **gradients.parameters)
"""

X86_64 = {"": 16, "+avx2,+fma": 32}


@pytest.mark.parametrize("features", sorted(X86_64))
def test_narrower_vectors_give_the_same_values(features, tmp_path):
    wanted = {name.lstrip("+") for name in features.split(",") if name}
    if "sse2" not in host.FEATURES:
        pytest.skip("the feature sets are those of x86-64")
    if not wanted <= host.FEATURES:
        pytest.skip(f"this host lacks {wanted - host.FEATURES}")
    file = tmp_path / "result.npz"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)],
        env={**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features},
        check=True,
        timeout=300,
    )
    layer = fastrnn.GRU(5, 37, bidirectional=True, seed=0)
    x = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
    y, _, tape = layer.forward(x, lengths=[9, 1, 0, 4, 9, 8, 2])
    gradients = layer.backward(tape, np.ones_like(y))
    other = np.load(file)
    assert other["bytes"] == X86_64[features]
    # Rounding differs between hosts; the sums here have some hundred terms of order 1.
    np.testing.assert_allclose(other["y"], y, atol=1e-6)
    for name, value in {"x": gradients.x, **gradients.parameters}.items():
        np.testing.assert_allclose(other[name], value, atol=2e-5, err_msg=name)
