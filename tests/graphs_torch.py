"""A model around a recurrent module, and all that is compared of it in a graph and outside."""

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence


class Model(torch.nn.Module):
    """A recurrent module between operations of torch's own."""

    def __init__(self, recurrent: torch.nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Any, hx: Any = None) -> list[torch.Tensor]:
        given = x if isinstance(x, PackedSequence) else torch.sin(x)
        return [torch.relu(one) for one in flat(self.recurrent(given, hx))]


def flat(results: Any) -> list[torch.Tensor]:
    """The tensors of results, or of inputs; of packed ones the data."""
    if isinstance(results, PackedSequence):
        return [results.data]
    if isinstance(results, torch.Tensor):
        return [results]
    return [one for part in results for one in flat(part)]


def differentiated(model: Any, *inputs: Any) -> list[torch.Tensor]:
    """Results, and gradients of a loss of all of them, of all that has one."""
    torch.manual_seed(3)
    results = flat(model(*inputs))
    wanted = [one for one in flat(inputs) if one.requires_grad] + [*model.parameters()]
    loss = sum((one * torch.linspace(-1, 1, one.numel()).view_as(one)).sum() for one in results)
    return [*results, *torch.autograd.grad(loss, wanted)]


def assert_equal(found: Any, wanted: Any) -> None:
    """Bit for bit."""
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
