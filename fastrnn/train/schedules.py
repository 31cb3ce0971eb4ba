"""Learning rates over the steps of a training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from fastrnn import check


def positive(name: str, value: Any) -> float:
    """A number above 0."""
    if value is None:
        raise TypeError(f"{name} is None, wanted a number above 0")
    number = check.clip(name, value)
    if math.isinf(number):
        raise ValueError(f"{name} is {value!r}, wanted a finite number above 0")
    return number


class Schedule(ABC):
    """A learning rate that depends on the number of steps done, or on how validation goes."""

    @abstractmethod
    def at(self, step: int) -> float:
        """The rate of a step, the first of which is 0."""

    def observe(self, loss: float) -> None:  # noqa: B027  (most go by the steps alone)
        """Take note of the loss that an epoch ended with."""

    def state(self) -> dict[str, float]:
        """What `restore` needs to go on from here."""
        return {}

    def restore(self, state: Mapping[str, float]) -> None:  # noqa: B027  (most have none)
        """Go on from a state."""


class Constant(Schedule):
    """The same rate at every step."""

    def __init__(self, rate: float) -> None:
        self.rate = positive("rate", rate)

    def at(self, step: int) -> float:
        """The rate."""
        return self.rate


class Cosine(Schedule):
    """From `rate` down to `last` over `steps` steps, as half a wave of a cosine; then `last`.

    Loshchilov and Hutter 2017, "SGDR: Stochastic gradient descent with warm restarts", equation 5,
    without restarts.
    """

    def __init__(self, rate: float, steps: int, last: float = 0.0) -> None:
        self.rate, self.steps = positive("rate", rate), check.size("steps", steps)
        self.last = 0.0 if last == 0 else positive("last", last)

    def at(self, step: int) -> float:
        """The rate of a step."""
        share = min(1.0, step / self.steps)
        return self.last + (self.rate - self.last) * (1 + math.cos(math.pi * share)) / 2


class WarmUp(Schedule):
    """Rates that grow evenly over the first `steps` steps to those of another schedule.

    after: the schedule, or a rate; its own steps count from the end of the warm-up.
    """

    def __init__(self, steps: int, after: "Schedule | float") -> None:
        self.steps, self.after = check.size("steps", steps), schedule_of(after)

    def at(self, step: int) -> float:
        """The rate of a step."""
        if step < self.steps:
            return self.after.at(0) * (step + 1) / self.steps
        return self.after.at(step - self.steps)

    def observe(self, loss: float) -> None:
        """Take note of the loss that an epoch ended with."""
        self.after.observe(loss)

    def state(self) -> dict[str, float]:
        """What `restore` needs."""
        return self.after.state()

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a state."""
        self.after.restore(state)


class Plateau(Schedule):
    """A rate that is multiplied by `factor` where the loss has not fallen for `patience` epochs.

    The loss is that of the validation, or of training where there is none. It has fallen if it is
    less than the least so far by a share of `least_change`. The rate never goes below `last`.
    """

    def __init__(
        self,
        rate: float,
        factor: float = 0.5,
        patience: int = 3,
        least_change: float = 1e-4,
        last: float = 1e-8,
    ) -> None:
        self.rate, self.factor = positive("rate", rate), positive("factor", factor)
        if self.factor >= 1:
            raise ValueError(f"factor is {factor!r}, wanted less than 1")
        self.patience = check.size("patience", patience)
        self.least_change = check.probability("least_change", least_change)
        self.last = positive("last", last)
        self._now, self._least, self._waited = self.rate, math.inf, 0

    def at(self, step: int) -> float:
        """The rate as it is now."""
        return self._now

    def observe(self, loss: float) -> None:
        """Take note of the loss that an epoch ended with."""
        if loss < self._least - abs(self._least) * self.least_change or math.isinf(self._least):
            self._least, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self._now, self._waited = max(self.last, self._now * self.factor), 0

    def state(self) -> dict[str, float]:
        """What `restore` needs."""
        return {"now": self._now, "least": self._least, "waited": float(self._waited)}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a state."""
        self._now, self._least = float(state["now"]), float(state["least"])
        self._waited = int(state["waited"])


def schedule_of(rate: Any) -> Schedule:
    """A schedule, of a number the constant one."""
    return rate if isinstance(rate, Schedule) else Constant(rate)
