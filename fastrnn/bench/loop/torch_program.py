"""A model in PyTorch, and a step of it as tutorials write it."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from fastrnn.bench.data import Array
from fastrnn.bench.loop.data import Batch, weights
from fastrnn.bench.loop.models import Model


class Network(nn.Module):  # type: ignore[misc]
    """Embedding, recurrent layer, dense layer."""

    def __init__(self, model: Model, layers: Any) -> None:
        super().__init__()
        self.model = model
        self.embedding = (
            nn.Embedding(model.vocabulary, model.inputs) if model.vocabulary else nn.Identity()
        )
        self.recurrent = getattr(layers, model.cell.upper())(
            model.inputs, model.hidden, model.num_layers,
            batch_first=model.batch_first, bidirectional=model.bidirectional,
        )  # fmt: skip
        self.dense = nn.Linear(model.hidden * (1 + model.bidirectional), model.outputs)

    def forward(self, x: Any, lengths: Any) -> Any:
        """Outputs of all steps, or from the final h."""
        x = self.embedding(x)
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, state = self.recurrent(x)
        if self.model.each_step:
            return self.dense(y)
        h = state[0] if isinstance(state, tuple) else state
        last = torch.cat([h[-2], h[-1]], 1) if self.model.bidirectional else h[-1]
        return self.dense(last)


class Inference:
    """A call of a model in inference mode."""

    def __init__(self, model: Model, layers: Any, dtype: Any) -> None:
        self.model, self.dtype, self.draws = model, dtype, 0
        self.network = Network(model, layers).to(dtype).train(model.training)

    def load(self, given: Batch) -> Any:
        """The input as tensors."""
        x, wanted = torch.from_numpy(given.x), torch.from_numpy(given.wanted)
        if not self.model.batch_first:
            x, wanted = x.transpose(0, 1).contiguous(), wanted.transpose(0, 1).contiguous()
        lengths = None if given.lengths is None else torch.from_numpy(given.lengths)
        return self._as_floats(x), self._as_floats(wanted), lengths

    def _as_floats(self, tensor: Any) -> Any:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def rewind(self, loaded: Any) -> None:
        """The parameters' next values."""
        self.draws += 1
        parameters = list(self.network.parameters())
        values = weights([tuple(one.shape) for one in parameters], self.draws)
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(torch.from_numpy(value))

    def run(self, loaded: Any) -> Any:
        """One call."""
        x, _, lengths = loaded
        with torch.inference_mode():
            return self.network(x, lengths)

    def read(self, result: Any) -> dict[str, Array]:
        """The outputs."""
        return {"outputs": result.numpy()}


class Training(Inference):
    """Steps that train a model."""

    def __init__(self, model: Model, layers: Any, dtype: Any) -> None:
        super().__init__(model, layers, dtype)
        self.loss = nn.MSELoss() if model.outputs == 1 else nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)

    def run(self, loaded: Any) -> Any:
        """One step; its loss."""
        x, wanted, lengths = loaded
        self.optimizer.zero_grad()
        outputs = self.network(x, lengths)
        if self.model.each_step:
            outputs, wanted = outputs.flatten(0, 1), wanted.flatten()
        loss = self.loss(outputs, wanted)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return loss

    def read(self, result: Any) -> dict[str, Array]:
        """The loss, and the gradients, clipped."""
        gradients = {f"d{name}": p.grad.numpy() for name, p in self.network.named_parameters()}
        return {"loss": result.detach().numpy(), **gradients}


def build(model: Model, own: bool, dtype: str) -> Inference:
    """The model with fastrnn's layers, or torch's own."""
    layers = importlib.import_module("fastrnn.torch") if own else nn
    return (Training if model.training else Inference)(model, layers, getattr(torch, dtype))
