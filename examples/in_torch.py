"""Swap the recurrent layers of a PyTorch model, and train it as before.

The task: sequences of tokens, of different lengths; after each token, tell which of 1, 2 and 3
came last. The model is written with torch.nn alone. One line puts its LSTM on fastrnn's kernels;
training, packed sequences and the optimiser stay as they are.

    python examples/in_torch.py

prints what was swapped, how far its gradients are from torch's own, and how many tokens of unseen
sequences it tells right. Needs `pip install -e ".[torch]"`.
"""

import copy

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import fastrnn.torch


class Tagger(nn.Module):
    """Tokens of 10 kinds -> scores of 4 tags, at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 16)
        self.lstm = nn.LSTM(16, 32)
        self.linear = nn.Linear(32, 4)

    def forward(self, tokens: PackedSequence) -> torch.Tensor:
        """Scores of all steps of all sequences, in the packed order."""
        packed = tokens._replace(data=self.embedding(tokens.data))
        return self.linear(self.lstm(packed)[0].data)


def batch(size: int) -> tuple[PackedSequence, torch.Tensor]:
    """Sequences of 5 to 40 tokens; the last of 1, 2, 3 at each step, 0 before there is one."""
    rows, tags = [], []
    for length in torch.randint(5, 41, (size,)).tolist():
        row = torch.randint(10, (length,))
        at = torch.where((row >= 1) & (row <= 3), torch.arange(1, length + 1), 0).cummax(0).values
        rows.append(row)
        tags.append(torch.where(at > 0, row[at - 1], 0))
    return pack_sequence(rows, False), pack_sequence(tags, False).data


def gradients(model: Tagger, tokens: PackedSequence, tags: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(tokens), tags).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def main() -> None:
    torch.manual_seed(0)
    model = Tagger()
    unswapped, (tokens, tags) = copy.deepcopy(model), batch(16)
    print(fastrnn.torch.accelerate(model))
    pairs = zip(gradients(model, tokens, tags), gradients(unswapped, tokens, tags), strict=True)
    print(f"largest difference of gradients: {max((a - b).abs().max() for a, b in pairs):.1e}")

    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        optimiser.zero_grad()
        tokens, tags = batch(32)
        nn.functional.cross_entropy(model(tokens), tags).backward()
        optimiser.step()
    tokens, tags = batch(200)
    right = (model(tokens).argmax(-1) == tags).float().mean()
    print(f"right on unseen sequences: {right:.1%}")


if __name__ == "__main__":
    main()
