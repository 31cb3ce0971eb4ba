"""torch.nn beside fastrnn: the same layer with the same weights, and its gradients."""

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn
from cases import Array, Problem, Result, as_state, states

# Tiny problems: threads of torch's own would only spin beside those of fastrnn.
torch.set_num_threads(1)


def twin(layer: Any) -> torch.nn.Module:
    """The torch.nn layer with the configuration and the weights of a fastrnn layer."""
    options = {
        "num_layers": layer.num_layers,
        "bias": layer.bias,
        "batch_first": layer.batch_first,
        "bidirectional": layer.bidirectional,
        "dtype": getattr(torch, np.dtype(layer.dtype).name),
    }
    if isinstance(layer, fastrnn.LSTM):
        options["proj_size"] = layer.proj_size
    if isinstance(layer, fastrnn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    module = getattr(torch.nn, type(layer).__name__)(layer.input_size, layer.hidden_size, **options)
    load(module, layer.state_dict())
    return module


def load(module: torch.nn.Module, parameters: dict[str, Array]) -> None:
    """Copies NumPy parameters into a module; every name must be there on both sides."""
    module.load_state_dict({name: torch.tensor(array) for name, array in parameters.items()})


def tensors(arrays: tuple[Array, ...]) -> list[torch.Tensor]:
    """Copies that gradients are wanted for."""
    return [torch.tensor(np.ascontiguousarray(array), requires_grad=True) for array in arrays]


def run(module: Any, p: Problem, lengths: Array | None = None) -> Result:
    """One forward and one backward pass of a torch.nn layer, packed if lengths are given."""
    (x,) = tensors((p.x,))
    initial = tensors(p.state)
    dy = torch.tensor(np.ascontiguousarray(p.dy))
    hx = as_state(initial)
    if lengths is None:
        y, state = module(x, hx)
    else:
        steps = torch.tensor(lengths)
        packed = pack_padded_sequence(x, steps, module.batch_first, enforce_sorted=False)
        y, state = module(packed, hx)
        time = 1 if module.batch_first else 0
        y, _ = pad_packed_sequence(y, module.batch_first, total_length=x.shape[time])
    final = states(state)
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(
        [y, *final],
        [x, *initial, *parameters.values()],
        [dy, *(torch.tensor(d) for d in p.dstate)],
    )
    dx, rest = gradients[0].numpy(), [g.numpy() for g in gradients[1:]]
    return Result(
        y=y.detach().numpy(),
        state=tuple(s.detach().numpy() for s in final),
        dx=dx,
        dstate=tuple(rest[: len(initial)]),
        parameters=dict(zip(parameters, rest[len(initial) :], strict=True)),
    )


def infer(module: Any, p: Problem) -> Array:
    """The output of an inference call of a torch.nn layer, without autograd."""
    initial = [torch.tensor(s) for s in p.state]
    with torch.inference_mode():
        y, _ = module(torch.tensor(p.x), as_state(initial))
    return y.numpy()
