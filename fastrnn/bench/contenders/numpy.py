"""The plain loop anyone would write first: one product for all x, then one per step."""

from __future__ import annotations

from typing import Any

from fastrnn.bench import reference
from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.data import Array, Sample, answer, weights


class Loop:
    """The reference's own loop in the case's dtype."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.weights = weights(case)

    def load(self, sample: Sample) -> Sample:
        """The sample as it is; a step is a sequence of one."""
        if not self.case.stepwise:
            return sample
        return Sample(sample.x[None], sample.state, None, sample.dstate, None)

    def run(self, sample: Sample) -> Any:
        """One call of the reference."""
        y, state, tape = reference.forward(
            self.case.cell, self.weights, sample.x, sample.state, sample.lengths
        )
        if sample.dy is None or self.case.pass_ == "forward":
            return y, state
        return (
            y,
            state,
            *reference.backward(self.case.cell, self.weights, tape, sample.dy, sample.dstate),
        )

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names."""
        y, *rest = result
        return answer(None if self.case.stepwise else y, *rest)


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a NumPy loop; its threads are the BLAS's, set by the environment."""
    return Loop(case)
