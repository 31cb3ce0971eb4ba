"""Everything about fastrnn.keras, once for each backend, which is fixed in a process."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("keras")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"),
    )
    for name in ("torch", "jax", "tensorflow", "numpy")
]


def run(backend, home, *command):
    """Run Python under a backend; what it said, after checking that it succeeded."""
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(home),
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def passed(said):
    return int(re.search(r"(\d+) passed", said)[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cases", ["cases_layers.py", "cases_models.py"])
def test_cases(backend, cases, tmp_path):
    # Warnings of the frameworks themselves are none of ours.
    options = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    said = run(backend, tmp_path, "-m", "pytest", *options, str(HERE / cases))
    assert passed(said) >= 3


#: Of Keras 3.15's files: simple_rnn 5, lstm 6, gru 15, bidirectional 20, rnn 4, stacked 4 tests.
FILES = "simple_rnn", "lstm", "gru", "bidirectional", "rnn", "stacked_rnn_cells"


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.values[0] in ("torch", "jax")])
def test_keras_s_own_tests(backend, tmp_path):
    folder = Path(find_spec("keras").origin).parent / "src" / "layers" / "rnn"
    files = [f"{name}_test.py" for name in FILES if (folder / f"{name}_test.py").exists()]
    if not files:
        pytest.skip("this Keras does not carry its tests")
    said = run(backend, tmp_path, str(ROOT / "tests" / "keras_own_tests.py"), *files)
    assert "failed" not in said
    assert passed(said) >= 40  # 52 of Keras 3.15, fewer of older ones
