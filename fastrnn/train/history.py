"""What a training went through."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """A training, epoch by epoch.

    loss: mean loss of the training batches of each epoch. validation: the loss on the validation
    data behind each, if there are any. rate: the learning rate of each epoch's last step. norm: the
    largest norm of the gradients in it, before clipping. seconds: how long it took.
    best: the number of the epoch, from 0, whose parameters the model has now.
    stopped: why it ended.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best: int | None = None
    stopped: str = ""

    @property
    def epochs(self) -> int:
        """The number of epochs that were run to their ends."""
        return len(self.loss)

    @property
    def watched(self) -> list[float]:
        """The losses that decide which epoch is the best: of validation, if there is one."""
        return self.validation or self.loss

    def waited(self) -> int:
        """The epochs since the best one."""
        return self.epochs - 1 - (-1 if self.best is None else self.best)

    def note(
        self, loss: float, validation: float | None, rate: float, norm: float, seconds: float
    ) -> bool:
        """Add an epoch; whether it is the best so far."""
        self.loss.append(loss)
        if validation is not None:
            self.validation.append(validation)
        self.rate.append(rate)
        self.norm.append(norm)
        self.seconds.append(seconds)
        least = math.inf if self.best is None else self.watched[self.best]
        if self.watched[-1] < least:
            self.best = self.epochs - 1
            return True
        return False

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return dict(vars(self))


class DivergenceError(ArithmeticError):
    """A loss or a gradient that is not finite. The model has its best parameters again.

    history: of the epochs before. epoch, step: where it came, counted from 0.
    """

    def __init__(self, message: str, history: History, epoch: int, step: int) -> None:
        super().__init__(message)
        self.history, self.epoch, self.step = history, epoch, step

    def __reduce__(self) -> Any:
        """Pickles go by the arguments."""
        return type(self), (self.args[0], self.history, self.epoch, self.step)
