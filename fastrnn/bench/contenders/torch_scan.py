"""The minGRU without a loop over time in PyTorch: h' = a h + b as an associative scan."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders.torch import Sequence, Training
from fastrnn.bench.data import weights


def scan(a: Any, b: Any) -> Any:
    """h (T, ...) of h[t] = a[t] h[t-1] + b[t], h before the first 0, in 2 log2(T) sweeps.

    G. Blelloch, "Prefix Sums and Their Applications" (1990), Sec. 1.4: pairs of steps are steps of
    half as many, whose results are the odd ones; each even one follows from the odd one before.
    """
    T = len(a)
    if T == 1:
        return b
    even_a, odd_a = a[0 : T - 1 : 2], a[1::2]
    odd = scan(odd_a * even_a, torch.addcmul(b[1::2], odd_a, b[0 : T - 1 : 2]))
    later = torch.addcmul(b[2::2], a[2::2], odd[: (T - 1) // 2])
    even = torch.cat((b[:1], later))
    if T % 2:
        return torch.cat((torch.stack((even[:-1], odd), 1).flatten(0, 1), even[-1:]))
    return torch.stack((even, odd), 1).flatten(0, 1)


class Scan(torch.nn.Module):  # type: ignore[misc]
    """The minGRU, or with g(n) that of its appendix."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        for name, value in weights(case).items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(value)))
        self.positive = case.cell == "MinGRULog"

    def forward(self, x: Any, state: Any) -> Any:
        """y (T, B, H) and the final state (1, B, H)."""
        k, n = linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        z = torch.sigmoid(k)
        if self.positive:
            n = torch.where(n >= 0, n + 0.5, torch.sigmoid(n))
        a, b = 1 - z, z * n
        y = scan(a, torch.cat((torch.addcmul(b[:1], a[:1], state), b[1:])))
        return y, y[-1:]


def program_of(case: Case, threads: int, module: torch.nn.Module) -> Program:
    """A module as the program of a case."""
    torch.set_num_threads(threads)
    program = Training(case) if case.pass_ == "train" else Sequence(case)
    program.module = module
    return program


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a scan."""
    return program_of(case, threads, Scan(case))
