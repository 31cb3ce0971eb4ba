"""The plain loop in PyTorch as `torch.compile` makes it: all steps in one graph."""

from __future__ import annotations

import torch

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders.torch import Sequence, Training


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a compiled module; it is compiled in the first call."""
    torch.set_num_threads(threads)
    program = Training(case) if case.pass_ == "train" else Sequence(case)
    program.module.compile()
    return program
