"""The bar that a training shows on a terminal."""

import math
import sys
from time import perf_counter
from typing import Any

from fastrnn.train.history import History


class Progress:
    """A bar of an epoch's sequences, with the loss and sequences a second; nothing if not shown.

    A context: the terminal is as before when it ends, however that is.
    """

    def __init__(self, shown: bool, epochs: int, history: History) -> None:
        self._bar: Any = None
        self._epochs, self._history = epochs, history
        self._task: Any = None
        self._began, self._done = 0.0, 0
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(),
                TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn(),
                TextColumn("{task.fields[told]}"), console=Console(stderr=True),
            )  # fmt: skip

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, epoch: int, sequences: int) -> None:
        """An epoch begins."""
        self._began, self._done = perf_counter(), 0
        if self._bar is not None:
            told = f"epoch {epoch + 1}/{self._epochs}"
            self._task = self._bar.add_task(told, total=sequences, told="")

    def advance(self, sequences: int, steps: int, loss: float) -> None:
        """A batch is done."""
        self._done += sequences
        if self._bar is not None:
            rate = self._done / max(perf_counter() - self._began, 1e-9)
            told = f"loss {loss:.4g}, {rate:.0f} sequences/s"
            self._bar.update(self._task, advance=sequences, told=told)

    def end(self) -> None:
        """An epoch is done."""
        if self._bar is not None:
            history = self._history
            told = f"loss {history.loss[-1]:.4g}"
            if history.validation:
                told += f", validation {history.validation[-1]:.4g}"
            if history.best == history.epochs - 1 and not math.isinf(history.watched[-1]):
                told += ", the best so far"
            self._bar.update(self._task, told=told)
