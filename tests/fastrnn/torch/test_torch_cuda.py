"""The adapter on the GPU's kernels, by Numba's simulator: its arrays are the CPU's.

NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 pytest tests -k cuda
"""

from contextlib import nullcontext
from importlib import import_module

import pytest
import torch
from numba import config
from torch.nn.utils.rnn import pack_padded_sequence

from cases import assert_close
from fastrnn import adapting
from fastrnn.torch import devices
from own_torch import pair, torch_itself

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)


@pytest.fixture
def on_the_simulator(monkeypatch):
    """Tensors of the CPU go to the GPU's kernels, and weights are not compared, as there."""
    kernels = import_module("fastrnn_kernels.cuda.device")
    device = devices.Device(kernels, devices._numpy, torch.from_numpy, nullcontext)
    monkeypatch.setattr(devices, "_cpu", lambda: device)
    monkeypatch.setattr(adapting.Copies, "current", lambda self: True)


@pytest.mark.usefixtures("on_the_simulator")
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "LSTMCell"])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_values_and_gradients(kind, form):
    cell = kind.endswith("Cell")
    ours, theirs = pair(kind, 2, 3, dtype=torch.float64)
    x, found = torch.randn((2, 2) if cell else (3, 2, 2), dtype=torch.float64), []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        given = leaf
        if form == "packed" and not cell:
            given = pack_padded_sequence(leaf, [1, 3], enforce_sorted=False)
        with torch_itself():
            y = module(given)[0]
        y = getattr(y, "data", y) if form == "packed" and not cell else y
        found.append([y, *torch.autograd.grad(y.square().sum(), [leaf, *module.parameters()])])
    for one, other in zip(*found, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), 1e-10)


@pytest.mark.usefixtures("on_the_simulator")
def test_an_optimisers_step_is_seen_by_the_version():
    ours, theirs = pair("GRU", 2, 3, dtype=torch.float64)
    x, found = torch.randn(3, 2, 2, dtype=torch.float64), []
    for module in (ours, theirs):
        optimiser = torch.optim.SGD(module.parameters(), 0.5)
        for _ in range(2):
            with torch_itself():
                loss = module(x)[0].square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found.append(loss)
    assert found[0].item() == pytest.approx(found[1].item(), abs=1e-10)
