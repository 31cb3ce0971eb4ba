"""Two processes under DistributedDataParallel have the gradients of one on the joined batch."""

import os
from datetime import timedelta

import pytest
import torch
import torch.multiprocessing
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cases import TOLERANCE, assert_close
from fastrnn.torch import accelerate

T, B, I, H = 6, 4, 5, 8


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(I, H, 2, bidirectional=True), nn.Linear(2 * H, 1)

    def forward(self, x):
        return self.out(self.lstm(x)[0][-1])


def made():
    torch.manual_seed(0)
    model = Model()
    assert accelerate(model).swapped == ("lstm",)
    return model, torch.randn(T, 2 * B, I)


def steps(model, x):
    """Gradients of two steps: the second sees what the first did to the weights."""
    optimiser, found = torch.optim.SGD(model.parameters(), 0.5), []
    for _ in range(2):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        found += [p.grad.clone() for p in model.parameters()]
        optimiser.step()
    return found


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    model, x = made()
    gradients = steps(DistributedDataParallel(model), x[:, rank * B : (rank + 1) * B])
    torch.save(gradients, os.path.join(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_are_as_one(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    wanted = steps(*made())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one.numpy(), other.numpy(), TOLERANCE["float32"])
