"""What a model's own framework makes of its file, to compare with: for `fastrnn convert`.

A framework reads the file in a process of its own, once fastrnn has read it, and found nothing in
it that it does not know:

    python -m fastrnn.tools.sources FORMAT FILE X.npy Y.npy
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files import budget, json
from fastrnn.files.zip import Archive

#: What each format's frameworks are called, and the package that has to be there.
_FRAMEWORKS = {"keras": ("Keras", "keras"), "onnx": ("ONNX", "onnx"), "torch": ("PyTorch", "torch")}
#: Operators of ONNX that compute no more than they are given, beside recurrent ones.
_QUIET = (
    "Cast", "Concat", "Constant", "Gather", "Identity", "MatMul", "Add", "Gemm", "Relu", "Reshape",
    "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Squeeze", "Tanh", "Transpose",
    "Unsqueeze", "RNN", "LSTM", "GRU",
)  # fmt: skip
#: Seconds that a framework may take, its start included.
_PATIENCE_S = 120


def outputs(path: Path, kind: str, modules: Any, x: Array) -> tuple[str, Array] | None:
    """The framework of a file, and the y that it gives for x; None where it cannot be asked.

    kind: the file's format; modules: those of the model that fastrnn has read.
    """
    name, package = _FRAMEWORKS.get(kind, ("", ""))
    if not package or importlib.util.find_spec(package) is None:
        return None
    if kind == "torch":
        return name, _of_torch(modules, x)
    if kind == "keras" and not _is_of_keras_alone(str(path)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "x.npy", Path(folder) / "y.npy"
        np.save(given, x)
        backend = {} if importlib.util.find_spec("tensorflow") else {"KERAS_BACKEND": "numpy"}
        try:
            subprocess.run(
                [sys.executable, "-m", "fastrnn.tools.sources", kind, path, given, made],
                env={**backend, **os.environ}, capture_output=True, check=True,
                timeout=_PATIENCE_S,
            )  # fmt: skip
            return name, np.load(made)
        except (subprocess.SubprocessError, OSError):  # it cannot read what fastrnn can
            return None


def _of_torch(modules: Any, x: Array) -> Array:
    """By modules of torch's with the parameters of fastrnn's, which have the same names."""
    import torch

    from fastrnn.models.linear import Linear

    value = torch.from_numpy(x)
    for module in modules:
        config = module.config()
        kind = "Linear" if isinstance(module, Linear) else module.kind
        options = {
            key: config[key]
            for key in ("num_layers", "bidirectional", "batch_first", "nonlinearity", "proj_size")
            if key in config
        }
        sizes = list(config.values())[:2]
        twin = getattr(torch.nn, kind)(*sizes, bias=config["bias"], **options).to(value.dtype)
        state = {key: torch.from_numpy(v.copy()) for key, v in module.parameters.items()}
        twin.load_state_dict(state)
        with torch.no_grad():
            value = twin(value)
        value = value[0] if isinstance(value, tuple) else value
    found: Array = value.numpy()
    return found


def _is_of_keras_alone(path: str) -> bool:
    """Whether an archive's configuration names nothing but Keras's own classes.

    Keras imports the modules that a configuration names.
    """
    if not path.lower().endswith(".keras"):
        return False  # which says nothing of how its layers are joined
    data, room = budget.read(path)
    todo = [json.parse(Archive(data, room).read("config.json"), room, "config.json")]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            module = one.get("module", "keras")
            if not isinstance(module, str) or module.partition(".")[0] != "keras":
                return False
            todo += one.values()
        elif isinstance(one, list):
            todo += one
    return True


def _by_keras(path: str, x: Array) -> Array:
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    y = model(x, training=False)
    found: Array = np.asarray(keras.ops.convert_to_numpy(y[0] if isinstance(y, list) else y))
    return found


def _by_onnx(path: str, x: Array) -> Array:
    """By ONNX's own evaluator; states that the caller gives are zero."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    if any(node.op_type not in _QUIET for node in model.graph.node):
        raise ValueError("it has operators that may ask for any memory")
    constants = {tensor.name for tensor in model.graph.initializer}
    first, *states = (one for one in model.graph.input if one.name not in constants)
    given = {first.name: x}
    batch = x.shape[1]
    for state in states:
        sizes = [dim.dim_value or batch for dim in state.type.tensor_type.shape.dim]
        given[state.name] = np.zeros(sizes, x.dtype)
    y = np.asarray(ReferenceEvaluator(model).run(None, given)[0])
    if y.ndim == 4:  # (T, D, B, H)
        y = y.transpose(0, 2, 1, 3).reshape(*y.shape[::2][:2], -1)
    return y


if __name__ == "__main__":
    read = {"keras": _by_keras, "onnx": _by_onnx}[sys.argv[1]]
    np.save(sys.argv[4], read(sys.argv[2], np.load(sys.argv[3])))
