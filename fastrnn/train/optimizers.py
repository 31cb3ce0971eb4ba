"""Optimisers: how parameters change with their gradients.

All parameters of a model are one vector here, so that a step of a small model is a few operations
of NumPy and not a few for each of its parameters.
"""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, Shape
from fastrnn.files import safetensors
from fastrnn.files.paths import path_of
from fastrnn.models.module import Named
from fastrnn.train.schedules import Schedule, positive, schedule_of
from fastrnn_kernels import handlers


class NotFiniteError(ValueError):
    """A parameter, or its gradient, that would not be finite behind a step; nothing was changed."""


class Optimizer(ABC):
    """What optimisers share.

    rate: the learning rate, a number or a schedule.

    An optimiser belongs to the model of its first step: its moments are of that one's parameters.
    """

    #: the names of the vectors that it keeps
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, rate: Schedule | float) -> None:
        self.schedule = schedule_of(rate)
        self.steps = 0
        self._shapes: dict[str, Shape] = {}
        self._moments: dict[str, Array] = {}

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule.at(self.steps)

    def step(self, model: Named, gradients: Mapping[str, Array]) -> None:
        """Change a model's parameters by their gradients, all or none of them.

        gradients: by the parameters' names, of all that the model has, or of some: the others stay
        as they are, and so do their moments. Raises ValueError for names or shapes of another
        model, and where a gradient or what becomes of a parameter is not finite: nothing is changed
        then.
        """
        values = model.parameters
        if not self._shapes:
            self._begin(values)
        if {name: value.shape for name, value in values.items()} != self._shapes:
            raise ValueError(
                f"this {type(self).__name__} belongs to another model, with the parameters "
                f"{', '.join(self._shapes)}: make one for each model"
            )
        self._order(list(values))
        unknown = [name for name in gradients if name not in values]
        if unknown:
            raise ValueError(f"gradients has {unknown[0]!r}, which is no parameter of the model")
        for name, g in gradients.items():
            if np.shape(g) != self._shapes[name]:
                raise ValueError(
                    f"the gradient of {name} has shape {np.shape(g)}, wanted {self._shapes[name]}"
                )
        names = [name for name in values if name in gradients]
        if not names:
            return
        moments = self._taken(names)
        p = np.concatenate([values[name].reshape(-1) for name in names])
        g = np.concatenate([np.asarray(gradients[name], p.dtype).reshape(-1) for name in names])
        with np.errstate(all="ignore"):  # what is not finite is told below
            new = self._new(p, g, moments, self.schedule.at(self.steps))
        if not np.isfinite(new).all():
            wrong = next(n for n, part in self._apart(names, new) if not np.isfinite(part).all())
            told = "is" if np.isfinite(gradients[wrong]).all() else "has a gradient that is"
            raise NotFiniteError(
                f"{wrong} {told} not finite at step {self.steps}, and nothing was changed: a lower "
                "rate, or clip_by_norm, keeps it finite"
            )
        model.update(dict(self._apart(names, new)))
        self._put(names, moments)
        self.steps += 1

    @abstractmethod
    def _new(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> Array:
        """The new parameters, of the old ones and their gradients; moments are changed in place."""

    def _begin(self, values: Mapping[str, Array]) -> None:
        self._shapes = {name: value.shape for name, value in values.items()}
        dtype = np.result_type(*values.values()) if values else np.dtype(np.float32)
        size = sum(map(math.prod, self._shapes.values()))
        self._moments = {name: np.zeros(size, dtype) for name in self.kept}

    def _order(self, names: list[str]) -> None:
        """Have the moments in the order of the model's parameters: a file has one of its own."""
        if names == list(self._shapes):
            return
        places = self._places()
        self._moments = {
            kept: np.concatenate([moment[places[name]] for name in names])
            for kept, moment in self._moments.items()
        }
        self._shapes = {name: self._shapes[name] for name in names}

    def _places(self) -> dict[str, slice]:
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        ends = accumulate(sizes)
        return {
            name: slice(end - size, end)
            for name, size, end in zip(self._shapes, sizes, ends, strict=True)
        }

    def _taken(self, names: list[str]) -> dict[str, Array]:
        """Copies of the moments of some parameters, one behind the other."""
        if len(names) == len(self._shapes):
            return {kept: moment.copy() for kept, moment in self._moments.items()}
        places = self._places()
        return {
            kept: np.concatenate([moment[places[name]] for name in names])
            for kept, moment in self._moments.items()
        }

    def _put(self, names: list[str], moments: dict[str, Array]) -> None:
        if len(names) == len(self._shapes):
            self._moments = moments
            return
        places = self._places()
        for kept, moment in moments.items():
            for name, part in self._apart(names, moment):
                self._moments[kept][places[name]] = part.reshape(-1)

    def _apart(self, names: list[str], vector: Array) -> list[tuple[str, Array]]:
        found, at = [], 0
        for name in names:
            shape = self._shapes[name]
            size = math.prod(shape)
            found.append((name, vector[at : at + size].reshape(shape)))
            at += size
        return found

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that it keeps: the number of steps, moments by parameter, the schedule."""
        found: dict[str, Array] = {"steps": np.array(self.steps)}
        for kept, moment in self._moments.items():
            for name, part in self._apart(list(self._shapes), moment):
                found[f"{kept}.{name}"] = part.copy()
        for name, value in self.schedule.state().items():
            found[f"schedule.{name}"] = np.array(value)
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, with the same bits; nothing is changed where it does not fit."""
        if not isinstance(state, Mapping):
            raise TypeError(f"state is a {type(state).__name__}, wanted a mapping")
        if "steps" not in state:
            raise ValueError(f"state has no 'steps': it is none of {type(self).__name__}")
        parts: dict[str, dict[str, Array]] = {kept: {} for kept in self.kept}
        schedule: dict[str, float] = {}
        for name, value in state.items():
            of, _, rest = name.partition(".")
            if of == "schedule":
                schedule[rest] = float(np.asarray(value))
            elif of in parts:
                parts[of][rest] = np.asarray(value)
            elif name != "steps":
                raise ValueError(f"state has {name!r}, which {type(self).__name__} does not keep")
        shapes = [{name: value.shape for name, value in one.items()} for one in parts.values()]
        if any(one != shapes[0] for one in shapes):
            raise ValueError("state has moments that are not of the same parameters")
        if self._shapes and shapes and shapes[0] and shapes[0] != self._shapes:
            raise ValueError("state is of a model with other parameters")
        if set(schedule) != set(self.schedule.state()):
            raise ValueError("state is of another kind of schedule")
        if schedule:
            self.schedule.restore(schedule)
        self.steps = int(np.asarray(state["steps"]))
        if shapes and shapes[0]:
            self._shapes = shapes[0]
            self._moments = {
                kept: np.concatenate([value.reshape(-1) for value in one.values()])
                for kept, one in parts.items()
            }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a safetensors file; it appears whole or not at all."""
        metadata = {"fastrnn optimizer": json.dumps(type(self).__name__)}
        safetensors.write(self.state_dict(), path, metadata)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a state that `save` has written.

        Raises OSError or ValueError that names the file.
        """
        file = path_of(path)
        _, state = safetensors.read(str(file), "")
        try:
            self.load_state_dict(state)
        except ValueError as error:
            handlers.pass_on(error)
            raise ValueError(f"file {str(file)!r}: {error}") from None


class SGD(Optimizer):
    """Gradient descent, with momentum if that is above 0, Nesterov's if `nesterov`.

        v = momentum v + g;  p = p - rate v, or of Nesterov p - rate (g + momentum v)

    weight_decay: adds so much of the parameter to its gradient. Sutskever, Martens, Dahl and Hinton
    2013, "On the importance of initialization and momentum in deep learning", section 2, as torch
    writes it.
    """

    kept = ("velocity",)

    def __init__(
        self,
        rate: Schedule | float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(rate)
        self.momentum = check.probability("momentum", momentum)
        self.nesterov = check.flag("nesterov", nesterov)
        self.weight_decay = _decay(weight_decay)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is True and momentum is 0, wanted a momentum above 0")

    def _new(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> Array:
        g += p * p.dtype.type(self.weight_decay) if self.weight_decay else 0
        if self.momentum:
            v, factor = moments["velocity"], p.dtype.type(self.momentum)
            v *= factor
            v += g
            g = g + factor * v if self.nesterov else v
        changed: Array = p - p.dtype.type(rate) * g
        return changed


class RMSProp(Optimizer):
    """Gradients divided by the root of the mean of their squares.

        v = decay v + (1 - decay) g²;  p = p - rate g / (√v + epsilon)

    Tieleman and Hinton 2012, "Lecture 6.5: rmsprop".
    """

    kept = ("squares",)

    def __init__(
        self, rate: Schedule | float = 1e-3, decay: float = 0.9, epsilon: float = 1e-8
    ) -> None:
        super().__init__(rate)
        self.decay = check.probability("decay", decay)
        self.epsilon = positive("epsilon", epsilon)

    def _new(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> Array:
        v, number = moments["squares"], p.dtype.type
        v *= number(self.decay)
        v += number(1 - self.decay) * g * g
        below = np.sqrt(v)
        below += number(self.epsilon)
        np.divide(g, below, out=below)
        below *= number(rate)
        return np.subtract(p, below, out=below)


class Adam(Optimizer):
    """Gradients by their running mean, divided by the root of the running mean of their squares.

    betas: how slowly the two means change. Kingma and Ba 2015, "Adam: A method for stochastic
    optimization", Algorithm 1.
    """

    kept = ("mean", "squares")

    def __init__(
        self,
        rate: Schedule | float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(rate)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"betas is {betas!r}, wanted two numbers, as (0.9, 0.999)")
        first, second = (check.probability("betas", beta) for beta in betas)
        if max(first, second) == 1:
            raise ValueError(f"betas is {betas!r}, wanted numbers below 1")
        self.betas = first, second
        self.epsilon = positive("epsilon", epsilon)

    def _new(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> Array:
        m, v, number = moments["mean"], moments["squares"], p.dtype.type
        first, second = self.betas
        many = self.steps + 1
        m *= number(first)
        m += number(1 - first) * g
        v *= number(second)
        g *= g
        g *= number(1 - second)
        v += g
        below = np.sqrt(v, out=g)
        below *= number(1 / math.sqrt(1 - second**many))
        below += number(self.epsilon)
        np.divide(m, below, out=below)
        below *= number(rate / (1 - first**many))
        return np.subtract(p, below, out=below)


class AdamW(Adam):
    """Adam, with a decay of the parameters themselves: p = p - rate weight_decay p.

    Loshchilov and Hutter 2019, "Decoupled weight decay regularization", Algorithm 2.
    """

    def __init__(
        self,
        rate: Schedule | float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(rate, betas, epsilon)
        self.weight_decay = _decay(weight_decay)

    def _new(self, p: Array, g: Array, moments: dict[str, Array], rate: float) -> Array:
        kept = p * p.dtype.type(1 - rate * self.weight_decay)
        return super()._new(kept, g, moments, rate)


def _decay(value: Any) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else positive("weight_decay", value)
