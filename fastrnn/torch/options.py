"""What fastrnn's layers take that torch's have not.

They are attributes, so modules that `accelerate` has swapped have them as well.
"""

from typing import Any, Literal

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn import check
from fastrnn.torch.graph import as_hidden
from fastrnn.torch.module import Module
from fastrnn_kernels.gradients import NO_CLIP, Clip


class Options(Module):
    """The arguments of a layer beside torch's.

    checkpoint: for long sequences. A training step keeps the states of every so many steps, and
        computes what lies between them again in the backward pass, with the same gradients; "auto"
        is the square root of T, or more where sequences are few. None keeps all steps.
    clip_value, clip_norm: clip the gradient that each step gives to the state before it, as
        `fastrnn.LSTM.backward` does.
    initial_state: "zeros", or "learned": parameters, zeros at first, that states begin from where
        none is given, called as fastrnn's own layers call them, initial_h_l0.
    """

    checkpoint: int | str | None = None
    clip_value: float | None = None
    clip_norm: float | None = None

    def __init__(
        self,
        *arguments: Any,
        checkpoint: int | Literal["auto"] | None = None,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        initial_state: str = "zeros",
        **options: Any,
    ) -> None:
        check.choice("initial_state", initial_state, ("zeros", "learned"))
        for name in ("blocks", "norm"):
            if name in options:
                raise TypeError(
                    f"{name} is {options[name]!r}, and modules of torch have none so far: wanted "
                    f"fastrnn.{type(self).__name__}, which trains on NumPy arrays"
                )
        super().__init__(*arguments, **options)
        given = {"checkpoint": checkpoint, "clip_value": clip_value, "clip_norm": clip_norm}
        for name, value in given.items():
            if value is not None:  # else it has what torch's own has, and no more
                setattr(self, name, value)
        if initial_state == "learned":
            self.__dict__["initial_state"] = initial_state
            like = self.weight_ih_l0
            for state, width in zip(self._cell.states, self._widths, strict=True):
                for suffix in self._suffixes:
                    start = torch.zeros(width, dtype=like.dtype, device=like.device)
                    self.register_parameter(f"initial_{state}{suffix}", torch.nn.Parameter(start))

    def __setattr__(self, name: str, value: Any) -> None:
        """As torch's; options are checked."""
        if name == "checkpoint":
            check.checkpoint(value, 1, 1)
        elif name in ("clip_value", "clip_norm"):
            check.clip(name, value)
        elif name == "initial_state":
            raise AttributeError(f"initial_state is fixed at {self.initial_state!r}")
        super().__setattr__(name, value)

    @property
    def _widths(self) -> list[int]:
        raise NotImplementedError

    @property
    def _suffixes(self) -> list[str]:
        """How the names of parameters end, layer-major, then direction."""
        directions = ("", "_reverse")[: 2 if self.bidirectional else 1]
        return [f"_l{k}{direction}" for k in range(self.num_layers) for direction in directions]

    @property
    def _clip(self) -> Clip:
        return Clip(self.clip_value or 0.0, self.clip_norm or 0.0)

    def _trains_otherwise(self) -> bool:
        return self.checkpoint is not None or self._clip != NO_CLIP

    def _refuse_clip(self, where: str) -> None:
        if self._clip != NO_CLIP:
            raise RuntimeError(
                f"clip_value is {self.clip_value} and clip_norm {self.clip_norm}, and {where}, "
                "which cannot clip between steps"
            )

    def _begin(self, given: Any) -> Any:
        if self.initial_state != "learned":
            return None
        if isinstance(given, PackedSequence):
            _, sizes, order, _ = given
            batch = [sizes[0].item() if order is None else order.shape[0]]
        elif isinstance(given, torch.Tensor) and given.dim() in (2, 3):
            batch = [given.shape[not self.batch_first]] if given.dim() == 3 else []
        else:
            return None  # torch tells what is wrong
        found = []
        for state in self._cell.states:
            start = torch.stack([getattr(self, f"initial_{state}{end}") for end in self._suffixes])
            found.append(start[:, None].expand(-1, *batch, -1).contiguous() if batch else start)
        return as_hidden(found)

    def reset_parameters(self) -> None:
        """As torch's; initial states are zeros again."""
        super().reset_parameters()
        if self.initial_state == "learned":
            with torch.no_grad():
                for state in self._cell.states:
                    for suffix in self._suffixes:
                        getattr(self, f"initial_{state}{suffix}").zero_()

    def _own_forward(self, given: Any, hx: Any) -> Any:
        found = super()._own_forward(given, hx)
        if torch.is_grad_enabled():
            self._refuse_clip("torch's own kernels run")
        return found

    def extra_repr(self) -> str:
        """The arguments."""
        usual = {
            "checkpoint": None,
            "clip_value": None,
            "clip_norm": None,
            "initial_state": "zeros",
        }
        chosen = {name: getattr(self, name) for name in usual}
        told = [f"{name}={value!r}" for name, value in chosen.items() if value != usual[name]]
        return ", ".join([super().extra_repr(), *told])
