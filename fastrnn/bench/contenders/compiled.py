"""fastrnn's streams inside of a compiled function, without Python between the steps."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

import fastrnn
from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders.fastrnn import Step
from fastrnn.bench.data import ROTATION, sample


@numba.njit(nogil=True)
def _steps(handle, inputs, y, steps):  # type: ignore[no-untyped-def]
    for t in range(steps):
        fastrnn.jit.step(handle, inputs[t % ROTATION], y)


class Compiled(Step):
    """Steps of one stream, with one input after the other."""

    def __init__(self, case: Case, device: str) -> None:
        super().__init__(case, device)
        self.loaded = [self.load(sample(case, index)) for index in range(ROTATION)]
        self.inputs = np.stack([x for _, x, _ in self.loaded])
        stream = self.loaded[0][0]
        self.y = np.empty_like(stream.step(self.inputs[0]))
        self.handle = stream.handle

    def run(self, loaded: Any) -> Any:
        """One step."""
        stream, x, _ = loaded
        fastrnn.jit.step(stream.handle, x, self.y)
        return stream

    def repeat(self, calls: int) -> None:
        """Many steps."""
        _steps(self.handle, self.inputs, self.y, calls)


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a stream of a fastrnn cell."""
    fastrnn.set_num_threads(threads)
    return Compiled(case, device)
