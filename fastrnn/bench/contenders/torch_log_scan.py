"""The minGRU without a loop over time in PyTorch, in log-space, as its paper's appendix has it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear, logsigmoid, softplus

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders.torch_scan import Scan, program_of


class LogScan(Scan):
    """The minGRU whose candidates are positive: L. Feng et al., arXiv:2410.01201, appendix B.

    h = exp(A + logcumsumexp(log b - A)) with A the cumulative sum of log a. The first state, which
    may be negative here, joins outside of the logarithms: it is multiplied by exp(A).
    """

    def forward(self, x: Any, state: Any) -> Any:
        """y (T, B, H) and the final state (1, B, H)."""
        k, n = linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        log_n = torch.where(n >= 0, torch.log(torch.relu(n) + 0.5), logsigmoid(n))
        A = torch.cumsum(-softplus(k), 0)
        log_h = A + torch.logcumsumexp(-softplus(-k) + log_n - A, 0)
        y = torch.exp(log_h) + torch.exp(A) * state
        return y, y[-1:]


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a scan in log-space."""
    return program_of(case, threads, LogScan(case))
