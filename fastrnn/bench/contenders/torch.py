"""PyTorch, as its users call it: `torch.nn` modules, inference mode, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.contenders.torch_loop import Loop, Step
from fastrnn.bench.data import Array, Sample, answer, weights
from fastrnn.models.classes import entry_of


def _module(case: Case, what: str) -> Any:
    """The module of a case: of its cell, or, where `what` is "Cell", of a single step.

    Cells that torch does not have are a plain loop of its operations.
    """
    entry = entry_of(case.cell)
    values = {name: torch.from_numpy(array) for name, array in weights(case).items()}
    if not entry.torch:
        return Step(entry.cell, values) if what else Loop(entry.cell, values)
    name, _, nonlinearity = entry.torch.partition("_")
    own = {"nonlinearity": nonlinearity.lower()} if nonlinearity else {}
    make = getattr(torch.nn, name + what)
    module = make(case.shape.I, case.shape.H, dtype=getattr(torch, case.arrays), **own)
    suffix = "" if what else "_l0"
    module.load_state_dict({f"{name}{suffix}": value for name, value in values.items()})
    return module


def _state(case: Case, arrays: tuple[Array, ...]) -> Any:
    tensors = tuple(torch.from_numpy(array if case.stepwise else array[None]) for array in arrays)
    return tensors if len(tensors) > 1 else tensors[0]


def _tensors(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


class OneStep:
    """One step of a cell."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.module = _module(case, "Cell")

    def load(self, sample: Sample) -> Any:
        """One x (B, I) and the state as tensors."""
        return torch.from_numpy(sample.x), _state(self.case, sample.state)

    def run(self, loaded: Any) -> Any:
        """The next state."""
        with torch.inference_mode():
            return self.module(*loaded)

    def read(self, result: Any) -> dict[str, Array]:
        """The state's arrays."""
        return answer(None, [part.numpy() for part in _tensors(result)])


class Sequence:
    """A layer over whole sequences, packed and padded again where they are ragged.

    fastrnn takes a padded batch and its lengths and gives a padded batch, so packing and
    padding are part of the call here.
    """

    def __init__(self, case: Case, low: bool = True) -> None:
        self.case = case
        self.module = _module(case, "")
        #: bfloat16 throughout, as of a module after `.bfloat16()`; its training stays in float32
        self.low = low and case.dtype == "bfloat16" and case.pass_ == "forward"
        if self.low:
            self.module.bfloat16()

    def load(self, sample: Sample) -> Any:
        """The sequences x (T, B, I), the state, and the lengths as tensors."""
        lengths = None if sample.lengths is None else torch.from_numpy(sample.lengths)
        x, state = torch.from_numpy(sample.x), _state(self.case, sample.state)
        if self.low:
            x = x.bfloat16()
            wide = _tensors(state)
            state = tuple(one.bfloat16() for one in wide) if len(wide) > 1 else state.bfloat16()
        return x, state, lengths

    def call(self, x: Any, state: Any, lengths: Any) -> Any:
        """Outputs y (T, B, H) and the final state."""
        if lengths is None:
            return self.module(x, state)
        if isinstance(self.module, Loop):
            return self.module(x, state, lengths)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, state = self.module(packed, state)
        return pad_packed_sequence(y, total_length=self.case.shape.T)[0], state

    def run(self, loaded: Any) -> Any:
        """One inference."""
        with torch.inference_mode():
            return self.call(*loaded)

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names, without the axis of layers."""
        y, state = result
        return answer(
            y.float().numpy() if self.low else y.numpy(),
            [(part[0].float() if self.low else part[0]).numpy() for part in _tensors(state)],
        )


class Training(Sequence):
    """Forward and backward: gradients of x, of the initial state, of all parameters."""

    def load(self, sample: Sample) -> Any:
        """What `Sequence` takes, tracked by autograd, and the gradients that arrive."""
        assert sample.dy is not None
        x, state, lengths = super().load(sample)
        for leaf in (x, *_tensors(state)):
            leaf.requires_grad_()
        arriving = (torch.from_numpy(sample.dy), *_tensors(_state(self.case, sample.dstate)))
        return x, state, lengths, arriving

    def run(self, loaded: Any) -> Any:
        """One forward and one backward pass."""
        x, state, lengths, arriving = loaded
        y, state_n = self.call(x, state, lengths)
        wanted = (x, *_tensors(state), *self.module.parameters())
        outputs = y, *_tensors(state_n)
        # the SRU's first h reaches nothing
        return y, state_n, torch.autograd.grad(outputs, wanted, arriving, materialize_grads=True)

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names."""
        y, state, gradients = result
        dx, *rest = (gradient.numpy() for gradient in gradients)
        states = len(_tensors(state))
        names = (name.removesuffix("_l0") for name, _ in self.module.named_parameters())
        return answer(
            y.detach().numpy(),
            [part[0].detach().numpy() for part in _tensors(state)],
            dx,
            [part[0] for part in rest[:states]],
            dict(zip(names, rest[states:], strict=True)),
        )


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a torch module."""
    torch.set_num_threads(threads)
    if case.stepwise:
        return OneStep(case)
    return Training(case) if case.pass_ == "train" else Sequence(case)
