"""In these tests torch's own recurrent kernels raise, but where a test lets them run."""

import pytest
import torch

from fastrnn.torch import fallbacks
from own_torch import guard


@pytest.fixture(autouse=True)
def torch_is_seeded_and_its_kernels_raise(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(fallbacks, "_told", set())
    guard(monkeypatch)
