"""What type checkers know of the calls that everyone makes: a small file, and what mypy reveals.

torch is a few lines here, as it would take mypy longer than all else: its modules' calls are `Any`.
"""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

import fastrnn
import fastrnn.torch

x = np.zeros((5, 1, 3), np.float32)
reveal_type(fastrnn.load("m.safetensors"))
y, state = fastrnn.LSTM(3, 4)(x)
reveal_type(state)
reveal_type(fastrnn.GRU(3, 4).stream().step(x[0]))
model = fastrnn.Sequential(fastrnn.GRU(3, 4))
reveal_type(model[0])
reveal_type(model[:1])
reveal_type(len(model))
reveal_type(fastrnn.Ensemble(fastrnn.LSTM, 3, 4, models=2)(x)[1])
t = torch.Tensor()
reveal_type(fastrnn.torch.LSTM(3, 4)(t))
reveal_type(fastrnn.torch.GRU(3, 4)(t, t))
reveal_type(fastrnn.torch.RNN(3, 4)(PackedSequence()))
reveal_type(fastrnn.torch.LSTMCell(3, 4)(t, (t, t)))
reveal_type(fastrnn.torch.GRUCell(3, 4)(t))
fastrnn.torch.GRU(3, 4)(x)
fastrnn.torch.LSTM(3, 4)(t, t)
"""

LAYER = "fastrnn.models.layer.Layer[Any]"
LINEAR = "fastrnn.models.linear.Linear"
PART = "fastrnn.models.part.Part"
MODEL = "fastrnn.models.sequential.Sequential"
ENSEMBLE = "fastrnn.models.ensemble.Ensemble[Any]"
REVEALED = [
    f"{LAYER} | fastrnn.models.cells.RecurrentCell[Any] | {LINEAR} | {MODEL} | {ENSEMBLE}",
    "tuple[NDArray, NDArray]",
    "NDArray",
    f"{LAYER} | {LINEAR} | {PART}",
    MODEL,
    "int",
    "tuple[NDArray, NDArray]",
    "tuple[Tensor, tuple[Tensor, Tensor]]",
    "tuple[Tensor, Tensor]",
    "tuple[PackedSequence, Tensor]",
    "tuple[Tensor, Tensor]",
    "Tensor",
]

MODULES = "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"
TORCH = {
    "__init__.pyi": "class Tensor: ...\nfrom torch import nn as nn\n",
    "nn/__init__.pyi": "from typing import Any, Callable\n"
    "class Module:\n    __call__: Callable[..., Any]\n"
    + "".join(
        f"class {name}(Module):\n    def __init__(self, *a: Any) -> None: ...\n" for name in MODULES
    ),
    "nn/utils/__init__.pyi": "",
    "nn/utils/rnn.pyi": "class PackedSequence: ...\n",
}


def short(revealed):
    """A type without the modules of NumPy and torch, in one line of mypy's several forms."""
    text = re.sub(
        r"numpy\.ndarray\[tuple\[Any, \.\.\.\], numpy\.dtype\[Any\]\]", "NDArray", revealed
    )
    text = re.sub(r"torch\.(nn\.utils\.rnn\.)?", "", text).replace("builtins.", "")
    union = re.fullmatch(r"Union\[(.*)\]", text)
    return union[1].replace(", ", " | ") if union else text


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy not installed")
def test_what_mypy_knows(tmp_path):
    for name, text in TORCH.items():
        path = tmp_path / "stubs" / "torch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "program.py").write_text(PROGRAM)
    here = Path(__file__).resolve().parents[2]
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {tmp_path / 'stubs'}:{here}:{here / 'kernels'}\n"
        "follow_imports = silent\nignore_missing_imports = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "program.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert [short(one) for one in revealed] == REVEALED, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 2, done.stdout
    assert "No overload variant" in errors[0]
    assert "No overload variant" in errors[1]
