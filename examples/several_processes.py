"""Train in two processes, with the gradients that one would have on the joined batch.

Each process takes half of the batch; `DistributedDataParallel` averages their gradients after each
backward pass, here by gloo, on the CPU. fastrnn's modules take part as torch's own do.

    python examples/several_processes.py

prints the largest difference of their gradients from those of this process on the whole batch, of
the first step and of the second, which sees the weights that the first has changed. On several
machines, start processes by `torchrun`. Needs `pip install -e ".[torch]"`.
"""

import tempfile

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import fastrnn
import fastrnn.torch

T, B, I, H, PROCESSES = 20, 16, 8, 24, 2


class Model(nn.Module):
    """x (T, B, I) -> (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = fastrnn.torch.LSTM(I, H, 2, bidirectional=True), nn.Linear(2 * H, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0][-1])


def made() -> tuple[Model, torch.Tensor]:
    torch.manual_seed(0)  # the same model and data in each process
    return Model(), torch.randn(T, B, I)


def train(model: nn.Module, x: torch.Tensor) -> list[list[torch.Tensor]]:
    """Two steps; the gradients of each."""
    optimiser, found = torch.optim.SGD(model.parameters(), 0.5), []
    for _ in range(2):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        optimiser.step()
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # of each process: they share the CPUs
    fastrnn.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    model, x = made()
    mine = x.chunk(PROCESSES, dim=1)[rank]
    torch.save(train(DistributedDataParallel(model), mine), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def main(folder: str) -> None:
    other = multiprocessing.get_context("spawn").Process(target=work, args=(1, folder))
    other.start()
    wanted = train(*made())  # the whole batch; meanwhile the other one waits
    work(0, folder)
    other.join()
    for rank in range(PROCESSES):
        found = torch.load(f"{folder}/{rank}.pt")
        for step, (ours, whole) in enumerate(zip(found, wanted, strict=True), 1):
            off = max((a - b).abs().max() for a, b in zip(ours, whole, strict=True))
            print(f"process {rank}, step {step}: gradients differ by {off:.1e}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_here:
        main(made_here)
