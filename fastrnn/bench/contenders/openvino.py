"""OpenVINO: the model of one recurrent node that onnxruntime takes, compiled for the CPU."""

from __future__ import annotations

from typing import Any

import openvino

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders.onnxruntime import model
from fastrnn.bench.data import Array, Sample, answer

#: What it is asked to compute in, by how cases call it.
PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class Compiled:
    """A compiled model that NumPy arrays go into and come out of."""

    def __init__(self, case: Case, threads: int) -> None:
        self.case = case
        settings = {
            "INFERENCE_PRECISION_HINT": PRECISION[case.dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(model(case)), "CPU", settings)

    def load(self, sample: Sample) -> Any:
        """The arrays by the names of the model's inputs."""
        feed = {"x": sample.x}
        feed |= {name: array[None] for name, array in zip("hc", sample.state, strict=False)}
        return feed

    def run(self, feed: Any) -> Any:
        """One inference."""
        return self.model(feed)

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names, without the axis of directions."""
        y, *state = (result[k] for k in range(1 + self.case.states))
        return answer(y[:, 0], [part[0] for part in state])


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a compiled model."""
    return Compiled(case, threads)
