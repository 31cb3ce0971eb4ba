"""Every recurrent module of a model, swapped for fastrnn's in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.rnn import RNNBase, RNNCellBase
from torch.nn.utils import parametrize

from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.layers import GRU, LSTM, RNN
from fastrnn.torch.module import Module
from fastrnn.torch.packed import forget

_SWAPS = {one.__bases__[1]: one for one in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)}
_BACK = {ours: own for own, ours in _SWAPS.items()}
_NAMES = {kind.__name__ for kind in _SWAPS}


@dataclass(frozen=True)
class Accelerated:
    """What `accelerate` did, by the modules' names in the model.

    swapped: modules that run on fastrnn's kernels now; left: recurrent ones that do not, and why.
    """

    swapped: tuple[str, ...]
    left: Mapping[str, str]

    def __str__(self) -> str:
        """A line for each module."""
        lines = [f"{name or 'the model itself'}: swapped" for name in self.swapped]
        lines += [f"{name or 'the model itself'}: {why}" for name, why in self.left.items()]
        return "\n".join(lines) or "no recurrent modules"


def accelerate(model: torch.nn.Module) -> Accelerated:
    """Make every recurrent module of a model run on fastrnn's kernels, in place.

    The modules stay the same objects and only change their class: so do names, parameters,
    hooks, the training mode, and whatever else refers to them, optimisers too. The model may
    itself be recurrent. Returns what was swapped, and what not and why. `restore` is the way back.
    Raises TypeError for what is no module.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, wanted a torch.nn.Module")
    swapped, left = [], {}
    for name, module in model.named_modules():
        why = _why_not(module)
        if why is None:
            _change(module, _SWAPS)
            swapped.append(name)
        elif why:
            left[name] = why
    return Accelerated(tuple(swapped), left)


def restore(model: torch.nn.Module) -> tuple[str, ...]:
    """Make every recurrent module of fastrnn's in a model torch's own again, in place.

    The way back from `accelerate`: the modules stay the same objects, with all they have, and only
    change their class. Takes modules that were made as fastrnn's as well. Returns the names of
    what changed. Raises TypeError for what is no module, and ValueError, with nothing changed,
    where one has what torch's own has not: a learned initial state, zoneout, dropout inside.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, wanted a torch.nn.Module")
    ours = {
        name: module
        for name, module in model.named_modules()
        if parametrize.type_before_parametrizations(module) in _BACK
    }
    for name, module in ours.items():
        told = name or "the model itself"
        if module.initial_state == "learned":
            raise ValueError(f"{told!r} has a learned initial state, which torch's own has not")
        if module._regularised:
            raise ValueError(
                f"{told} has zoneout or dropout inside of its layers, which torch's own modules "
                "have not: it stays fastrnn's"
            )
    for module in ours.values():
        _change(module, _BACK)
        forget(module)
    return tuple(ours)


def _why_not(module: Any) -> str | None:
    """Why a module is left as it is, "" for what is not recurrent; None if it can be swapped."""
    if isinstance(module, torch.jit.ScriptModule):
        recurrent = getattr(module, "original_name", "") in _NAMES
        return "is compiled by TorchScript" if recurrent else ""
    kind = parametrize.type_before_parametrizations(module)
    if kind in _SWAPS:
        return None
    if isinstance(module, Module):
        return "is fastrnn's already"
    if isinstance(module, RNNBase | RNNCellBase):
        return f"is a {kind.__name__}, which may have a forward pass of its own"
    if kind.__module__.startswith("torch.ao.nn.quant") and kind.__name__ in _NAMES:
        return "is quantised"
    return ""


def _change(module: Any, classes: Mapping[Any, Any]) -> None:
    """Give a module the class that stands for its own in a table."""
    kind = type(module)
    vars(module).pop("__overloads__", None)  # TorchScript's, of the class that was
    if kind in classes:
        module.__class__ = classes[kind]
        return
    # torch gives each parametrised module a class of its own, derived from the one it had.
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, (classes[kind.__bases__[0]],), own)
