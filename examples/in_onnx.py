"""A model to ONNX and back, and ONNX's operators on fastrnn's kernels.

    python examples/in_onnx.py

writes a two-way GRU as an ONNX file; runs the file in ONNX's reference evaluator, with its own
operators and with fastrnn's, and in onnxruntime, if that is installed; and reads the file again.
It prints how far each is from the model, and how much quicker the evaluator is with fastrnn's
operators. Needs `pip install -e ".[onnx]"`.
"""

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from onnx.reference import ReferenceEvaluator

import fastrnn.onnx


def timed(call) -> tuple[list[np.ndarray], float]:
    """What a call gives, and the seconds of its second run."""
    call()
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def main(folder: Path) -> None:
    gru = fastrnn.GRU(16, 32, bidirectional=True, seed=0)
    file = str(folder / "gru.onnx")
    fastrnn.onnx.save(gru, file)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4, 16), dtype=np.float32)
    h_0 = rng.standard_normal((2, 4, 32), dtype=np.float32)
    y, _ = gru(x, h_0)
    given = {"x": x, "h_0": h_0}

    own, ours = ReferenceEvaluator(file), ReferenceEvaluator(file, new_ops=fastrnn.onnx.OPS)
    (found, _), seconds = timed(lambda: ours.run(None, given))
    print(f"reference evaluator, fastrnn's operators: off by {np.abs(found - y).max():.1e}")
    (found, _), before = timed(lambda: own.run(None, given))
    print(f"  its own: off by {np.abs(found - y).max():.1e}, {before / seconds:.0f} times slower")
    if find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        print(f"onnxruntime: off by {np.abs(session.run(None, given)[0] - y).max():.1e}")
    (layer,) = fastrnn.onnx.load(file).values()
    print(f"read again, a {type(layer).__name__}: off by {np.abs(layer(x, h_0)[0] - y).max():.1e}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
