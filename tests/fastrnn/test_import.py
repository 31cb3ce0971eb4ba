"""What `import fastrnn` brings along, and what it must not."""

import json
import subprocess
import sys

import pytest

#: What users may rely on, by module.
PUBLIC = {
    "fastrnn": {
        "GRU", "GRUCell", "LSTM", "LSTMCell", "Linear", "RNN", "RNNCell", "Sequential",
        "Attention", "Dropout", "Embedding", "Pool",
        "Device", "Ensemble", "Explanation", "Gradients", "Snapshot", "Stream", "Tape", "Window",
        "allow_tf32", "cell", "cells", "devices", "equations", "explain", "get_num_threads", "jit",
        "load", "release_memory",
        "set_num_threads", "tf32_allowed", "truncated", "warmup", "__version__",
    },
    "fastrnn.jit": {"DONE", "WRONG_INPUT", "WRONG_OUTPUT", "Handle", "block", "reset", "step"},
    "fastrnn.export": {"CPUS", "export"},
    "fastrnn.weights": {"FORMATS", "load", "save"},
}  # fmt: skip


def imported(statement):
    """The top-level modules of a fresh process after a statement."""
    script = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


@pytest.mark.smoke
def test_no_framework_is_imported():
    modules = imported("import fastrnn; layer = fastrnn.LSTM(3, 4); layer.save")
    assert "fastrnn" in modules
    assert "numba" in modules
    unwanted = {"torch", "keras", "tensorflow", "jax", "onnx", "onnxruntime", "sklearn"}
    assert not modules & (unwanted | {"cupy", "cuda"})


def test_a_small_call_of_auto_imports_nothing_of_the_gpu():
    call = "import numpy, fastrnn; fastrnn.RNN(3, 4)(numpy.ones((2, 1, 3), 'float32'))"
    assert not imported(call) & {"cupy", "cuda", "numba_cuda", "torch"}


def test_the_command_line_is_not_imported():
    assert not imported("import fastrnn") & {"click", "rich", "matplotlib", "pytest"}


def test_what_defines_cells_is_imported_when_it_is_asked_for():
    script = (
        "import sys, fastrnn; fastrnn.LSTM(3, 4); fastrnn.GRU(3, 4, reset_after=False); "
        "there = lambda: [m for m in sys.modules if 'equations' in m or m == 'fastrnn.cells']; "
        "assert not there(), there(); from fastrnn import cell, cells, equations; "
        "import fastrnn.define; assert there(); assert cell is fastrnn.define.cell; "
        "assert fastrnn.MGU is cells.MGU; assert equations.tanh"
    )
    subprocess.run([sys.executable, "-c", script], timeout=120, check=True)


def test_kernels_never_import_the_layers():
    modules = imported("import fastrnn_kernels.cpu")
    assert "fastrnn_kernels" in modules
    assert "fastrnn" not in modules


def listed(module):
    """What completion shows of a module in a fresh process, and what it says is public."""
    script = (
        f"import importlib, json; module = importlib.import_module({module!r}); "
        "print(json.dumps([dir(module), sorted(module.__all__)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", ["fastrnn", "fastrnn.jit", "fastrnn.export", "fastrnn.weights"])
def test_completion_shows_what_is_public(module):
    shown, public = listed(module)
    assert shown == public
    assert set(shown) == PUBLIC[module]


def test_what_completion_does_not_show_is_imported_as_ever():
    script = (
        "import fastrnn; from fastrnn import weights; import fastrnn.export, fastrnn.streams.cpu; "
        "assert weights is fastrnn.weights and fastrnn.export.export; "
        "print('weights' in dir(fastrnn), fastrnn.streams.cpu.Stream is fastrnn.Stream)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False", "True"]
