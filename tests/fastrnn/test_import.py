"""What `import fastrnn` brings along, and what it must not."""

import subprocess
import sys


def imported(statement):
    """The top-level modules of a fresh process after a statement."""
    script = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


def test_no_framework_is_imported():
    modules = imported("import fastrnn; layer = fastrnn.LSTM(3, 4); layer.save")
    assert "fastrnn" in modules
    assert "numba" in modules
    unwanted = {"torch", "keras", "tensorflow", "jax", "onnx", "onnxruntime", "cupy", "cuda"}
    assert not modules & unwanted


def test_a_small_call_of_auto_imports_nothing_of_the_gpu():
    call = "import numpy, fastrnn; fastrnn.RNN(3, 4)(numpy.ones((2, 1, 3), 'float32'))"
    assert not imported(call) & {"cupy", "cuda", "numba_cuda", "torch"}


def test_the_command_line_is_not_imported():
    assert not imported("import fastrnn") & {"click", "rich", "matplotlib", "pytest"}


def test_kernels_never_import_the_layers():
    modules = imported("import fastrnn_kernels.cpu")
    assert "fastrnn_kernels" in modules
    assert "fastrnn" not in modules
