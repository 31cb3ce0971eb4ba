"""Everything about fastrnn.keras, once for each backend, which is fixed in a process."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"),
    )
    for name in ("torch", "jax", "tensorflow", "numpy")
]


#: What is compiled for long there, and has nothing of its own to prove: which layers Python's side
#: swaps, and more models that train.
_LONG = ("what_accelerate_leaves", "the_classic_reviews", "accelerated_in_the_middle_of_training")
LEFT_OUT = {"jax": ["-k", " and ".join(f"not test_{name}" for name in _LONG)]}


def run(backend, home, *command):
    """Run Python under a backend; what it said, after checking that it succeeded."""
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": str(home),
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        # Much is compiled here to be run once.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
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
def test_cases(backend, tmp_path):
    """In one process: to start it takes seconds, and many cases compile the same."""
    files = "cases_layers.py", "cases_models.py", "cases_safety.py", "cases_defined.py"
    passes(backend, tmp_path, *files, options=LEFT_OUT.get(backend, ()))


@pytest.mark.smoke
@pytest.mark.parametrize("backend", BACKENDS[-1:])
def test_some_cases(backend, tmp_path):
    passes(backend, tmp_path, "cases_layers.py", options=["-k", "test_float32"])


def passes(backend, tmp_path, *files, options=()):
    # Warnings of the frameworks themselves are none of ours.
    options = [*options, "-v", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    said = run(backend, tmp_path, "-m", "pytest", *options, *(str(HERE / name) for name in files))
    for name in files:
        assert len(re.findall(rf"{name}::.* PASSED", said)) >= 3, name


#: Keras's own test files, how many of their tests pass at least, and how many in Keras 3.15. JAX
#: compiles for minutes what is the same for all cells and their wrappers.
OWN = {
    "torch": (
        ("simple_rnn", "lstm", "gru", "bidirectional", "rnn", "stacked_rnn_cells"),
        40,
        "52 passed, 3 skipped",  # those for CUDA, and one for TensorFlow
    ),
    "jax": (("lstm",), 4, "6 passed"),
}


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.values[0] in OWN])
def test_keras_s_own_tests(backend, tmp_path):
    names, least, all_of_them = OWN[backend]
    folder = Path(find_spec("keras").origin).parent / "src" / "layers" / "rnn"
    files = [f"{name}_test.py" for name in names if (folder / f"{name}_test.py").exists()]
    if not files:
        pytest.skip("this Keras does not carry its tests")
    said = run(backend, tmp_path, str(ROOT / "tests" / "keras_own_tests.py"), *files)
    assert "failed" not in said
    if version("keras").startswith("3.15."):
        assert all_of_them in said
    else:
        assert passed(said) >= least  # older ones have fewer
