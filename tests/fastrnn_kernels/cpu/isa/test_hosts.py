"""Other hosts than this one: the same kernels for narrower vectors, without fused multiply-add
and without bfloat16, which LLVM compiles when told to leave features of this host unused.

What runs on them are this suite's own tests of values.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu.isa import host

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

TESTS = Path(__file__).parents[3]
#: Tests whose answer depends on how a host computes.
OF_VALUES = [
    "fastrnn/models/test_bfloat16.py",
    "fastrnn/models/test_cells_values.py",
    "fastrnn/models/test_layers_gradients.py",
    "fastrnn/models/test_layers_values.py",
    "fastrnn_kernels/cpu/product/test_pairs.py",
    "fastrnn_kernels/cpu/isa/test_functions.py",
    "fastrnn_kernels/cpu/product/test_block.py",
    "fastrnn_kernels/cpu/isa/test_vector.py",
]

#: Sets of features by name, and the bytes of a vector with them.
WIDTHS = {"portable": 16, "avx2": 32, "avx512 without bfloat16": 64}
FEATURES = {
    "portable": frozenset(),
    "avx2": frozenset({"avx2", "fma"}),
    "avx512 without bfloat16": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
}


def environment(name):
    """What makes Numba compile for a host with these features alone."""
    if "sse2" not in host.FEATURES:
        pytest.skip("the feature sets are those of x86-64")
    missing = FEATURES[name] - host.FEATURES
    if missing:
        pytest.skip(f"this host lacks {', '.join(sorted(missing))}")
    wanted = FEATURES[name]
    if name.startswith("avx512"):
        wanted = host.FEATURES - {"avx512bf16"}
    features = ",".join(f"+{feature}" for feature in sorted(wanted))
    return {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}


@pytest.mark.parametrize("name", WIDTHS)
def test_tests_of_values_pass(name):
    files = [str(TESTS / file) for file in OF_VALUES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env=environment(name),
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize("name", WIDTHS)
def test_all_hosts_agree(name, tmp_path):
    file = tmp_path / "result.npz"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)],
        env=environment(name),
        check=True,
        timeout=300,
    )
    layer = fastrnn.GRU(5, 37, bidirectional=True, seed=0)
    x = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
    y, _, tape = layer.forward(x, lengths=[9, 1, 0, 4, 9, 8, 2])
    gradients = layer.backward(tape, np.ones_like(y))
    other = np.load(file)
    assert other["bytes"] == WIDTHS[name]
    # Rounding differs between hosts; the sums here have some hundred terms of order 1.
    np.testing.assert_allclose(other["y"], y, atol=1e-6)
    for key, value in {"x": gradients.x, **gradients.parameters}.items():
        np.testing.assert_allclose(other[key], value, atol=2e-5, err_msg=key)
