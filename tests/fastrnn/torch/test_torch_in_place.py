"""Who writes into an input or a result in place gets what torch's own modules give."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import fastrnn.torch
from own_torch import torch_itself

KINDS = {
    "RNN": {}, "GRU": {}, "LSTM": {}, "projected": {"proj_size": 3},
}  # fmt: skip
LAYOUTS = {"time first": (3, 2), "batch first": (2, 3), "one row": (1, 3), "unbatched": (3,)}


def gradients(module, x, write):
    """Of a loss that depends on all that a module gives, and on its input."""
    x = x.detach().clone().requires_grad_(x.requires_grad)
    module.zero_grad()
    given = x * 1
    y, state = module(given)
    total = write(given, y, state if isinstance(state, tuple) else (state,))
    total.backward()
    found = [parameter.grad for parameter in module.parameters()]
    return found if x.grad is None else [x.grad, *found]


def into_the_input(x, y, states):
    x += y
    return x.sin().sum() + sum(state.sum() for state in states)


def into_the_input_twice(x, y, states):
    x.mul_(2).add_(y.detach())
    return (x * y).sum()


def into_the_output(x, y, states):
    y += x
    return y.sin().sum() + sum(state.sum() for state in states)


def into_the_states(x, y, states):
    for state in states:
        state *= 2
    return (x * y).sum() + sum(state.sin().sum() for state in states)


def into_a_part_of_the_output(x, y, states):
    y[..., :1] = 0
    return (x * y).sum() + sum(state.sum() for state in states)


WRITES = [
    into_the_input, into_the_input_twice, into_the_output, into_the_states,
    into_a_part_of_the_output,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's, of its own kernels
@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("shape", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_where_torch_has_them(kind, directions, shape, differentiable, write):
    """Where torch refuses, as what it has kept was written over, fastrnn refuses or is right."""
    name, options = ("LSTM" if kind == "projected" else kind), KINDS[kind]
    width = options.get("proj_size", 4) * directions
    first = shape == LAYOUTS["batch first"] or shape == LAYOUTS["one row"]
    arguments = {"batch_first": first, "bidirectional": directions == 2, **options}
    plain = getattr(nn, name)(width, 4, **arguments)
    ours = getattr(fastrnn.torch, name)(width, 4, **arguments)
    ours.load_state_dict(plain.state_dict())
    x = torch.linspace(-1, 1, width * torch.Size(shape).numel()).reshape(*shape, width)
    x.requires_grad_(differentiable)
    try:
        with torch_itself():
            wanted = gradients(plain, x, write)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017
        wanted = None
    try:
        found = gradients(ours, x, write)
    except RuntimeError as error:
        assert wanted is None, error  # noqa: PT017
        return
    if wanted is None:
        with torch_itself():
            wanted = gradients(plain, x, lambda x, y, states: write(x, y.clone(), states))
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)  # of gradients up to 10


def test_second_derivatives_of_batch_first():
    """What reaches the kernels is a copy of the input, and x is found through it all the same."""
    plain, ours = nn.GRU(3, 4, batch_first=True), fastrnn.torch.GRU(3, 4, batch_first=True)
    ours.load_state_dict(plain.state_dict())
    x = torch.linspace(-1, 1, 18).reshape(2, 3, 3).requires_grad_()
    found = []
    for module in (plain, ours):
        warned = nullcontext() if module is plain else pytest.warns(match="first derivatives alone")
        with torch_itself(), warned:
            (dx,) = torch.autograd.grad(module(x)[0].sin().sum(), x, create_graph=True)
            found.append(torch.autograd.grad(dx.square().sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
