"""torch's modules in lower precision beside fastrnn's, with all that a call of them gives."""

import contextlib
import copy

import torch
from torch.nn.utils.rnn import pack_sequence

from graphs_torch import flat
from own_torch import pair

T, B, I, H = 5, 3, 4, 7
KINDS = {
    "RNN": ("RNN", {}),
    "LSTM": ("LSTM", {}),
    "LSTM-projected": ("LSTM", {"proj_size": 2}),
    "LSTM both ways": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "GRU both ways": ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "GRU": ("GRU", {"bias": False}),
    "RNNCell": ("RNNCell", {}),
    "LSTMCell": ("LSTMCell", {}),
    "GRUCell": ("GRUCell", {}),
}
LOW = [torch.bfloat16, torch.float16]
WAYS = ["autocast", "module"]


def made(name, way, low, **sizes):
    """A module of fastrnn's, torch's own, and fastrnn's in float32, with the same values."""
    kind, options = KINDS[name]
    ours, theirs = pair(kind, sizes.get("I", I), sizes.get("H", H), **options)
    if way == "module":
        ours.to(low), theirs.to(low)
    return ours, theirs, copy.deepcopy(ours).float()


def inputs(module, form, of_x, of_states, seed=0):
    """x and initial states, none for zeros, in the types given."""
    random = torch.Generator().manual_seed(seed)
    batch = () if form == "unbatched" else (B,)
    cell = not isinstance(module, torch.nn.RNNBase)
    lead = () if cell else (module.num_layers * (1 + module.bidirectional),)
    time = () if cell else (T,)
    shape = (*time, *batch, module.input_size)
    if getattr(module, "batch_first", False) and batch:
        shape = (*batch, *time, module.input_size)
    x = torch.randn(shape, generator=random).to(of_x)
    if of_states is None:
        return x, []
    widths = [getattr(module, "proj_size", 0) or module.hidden_size]
    widths += [module.hidden_size] if "LSTM" in type(module).__name__ else []
    shapes = [(*lead, *batch, width) for width in widths]
    return x, [torch.randn(one, generator=random).to(of_states) for one in shapes]


def packed_rows(x):
    return pack_sequence([x[: n + 1, n] for n in (2, 0, 1)], enforce_sorted=False)


def computed(module, x, states, form, low=None, training=True):
    """Results and gradients of a module, under autocast where a low type is given."""
    x, *states = (one.detach().clone().requires_grad_() for one in (x, *states))
    hx = tuple(states) if len(states) > 1 else states[0] if states else None
    under = contextlib.nullcontext() if low is None else torch.autocast("cpu", low)
    with torch.set_grad_enabled(training), under:
        given = x
        if form == "packed":
            given = packed_rows(x.transpose(0, 1) if module.batch_first else x)
        results = flat(module(given, hx))
    if not training:
        return results, []
    random = torch.Generator().manual_seed(1)
    # Numbers that all types have.
    d_results = [torch.randn(one.shape, generator=random).bfloat16().half() for one in results]
    d_results = [d.to(one.dtype) for d, one in zip(d_results, results, strict=True)]
    of = [x, *states, *module.parameters()]
    return [one.detach() for one in results], torch.autograd.grad(results, of, d_results)
