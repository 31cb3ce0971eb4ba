"""fastrnn's own LSTM and GRU, beside the same ones written with `fastrnn.cell`."""

from __future__ import annotations

from dataclasses import replace

from fastrnn.bench.cases import WRITTEN, Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders import fastrnn


def build(case: Case, threads: int, device: str) -> Program:
    """The case with the cell that is built in."""
    return fastrnn.build(replace(case, cell=WRITTEN[case.cell]), threads, device)
