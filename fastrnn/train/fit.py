"""A training: epochs, validation, early stopping, checkpoints, progress."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.files.paths import path_of
from fastrnn.models.embedding import Embedding
from fastrnn.models.layer import Layer
from fastrnn.models.pool import Pool
from fastrnn.models.sequential import Sequential
from fastrnn.models.truncated import truncated
from fastrnn.train import checkpoint as checkpoints
from fastrnn.train.clipping import clip_by_norm, norm_of
from fastrnn.train.data import Batch, Data
from fastrnn.train.history import DivergenceError, History
from fastrnn.train.losses import Loss
from fastrnn.train.optimizers import Adam, NotFiniteError, Optimizer
from fastrnn.train.progress import Progress

Model = Layer[Any] | Sequential


def fit(
    model: Model,
    data: Any,
    loss: Loss,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    *,
    batch_size: int = 32,
    validation: Any = None,
    early_stopping: int | None = None,
    tbptt: tuple[int, int] | None = None,
    stateful: bool = False,
    clip: float | None = None,
    rng: np.random.Generator | int | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
) -> History:
    """Train a model on sequences.

        model = fastrnn.Sequential(fastrnn.GRU(8, 64), fastrnn.Pool(), fastrnn.Linear(64, 3))
        history = train.fit(model, (sequences, classes), train.CrossEntropy(), train.Adam(1e-3),
                            validation=(others, their_classes), early_stopping=3)

    model: a layer, or a Sequential; it is changed in place, and ends with the parameters of the
        best epoch: that of the least validation loss, of training without one.
    data: (inputs, targets) or (inputs, targets, weight). inputs: N sequences, an array (N, T, I)
        of the model's float type, or a list of arrays (T_i, I); of a model with an Embedding tokens
        (N, T) or (T_i,). targets: one for each step, laid out like the inputs, or where the model
        has a Pool one for each sequence, (N, ...). weight (N,): how much each sequence counts.
    loss: one of `fastrnn.train`'s, or an object that is called like those.
    optimizer: Adam(1e-3) if None.
    batch_size: sequences of a step. They are shuffled and put together by length; what is padded
        is neither computed nor counted.
    validation: data like `data`, whose loss is taken behind each epoch, without dropout.
    early_stopping: end after so many epochs without a new best one.
    tbptt: (k1, k2): a step of the optimiser every k1 steps of the sequences, whose gradients reach
        back k2 steps, as `fastrnn.truncated`.
    stateful: the sequences of a batch go on in the next one: sequence b of a batch in sequence b of
        the next. Nothing is shuffled, each epoch begins with fresh states, and all batches are of
        one size.
    clip: the most that the norm of all gradients is, as `clip_by_norm`.
    rng: a generator, or its seed: of the order and of dropout.
    progress: show a bar, if this is a terminal.
    checkpoint: a file, written behind each epoch. Where it is there the training goes on from it,
        to the same bits as one that was never stopped; `epochs` counts those before, too.

    Returns what the training went through. Raises TypeError or ValueError for wrong arguments, and
    DivergenceError, an ArithmeticError, where the loss or a gradient is no longer finite: the model
    then has the parameters of the best epoch, or those from before where there is none. An
    interrupt leaves the model as it is in the middle of its epoch.
    """
    run = _Run(model, data, loss, optimizer, validation, batch_size, tbptt, stateful, clip, rng)
    epochs = check.size("epochs", epochs, least=0)
    if early_stopping is not None:
        early_stopping = check.size("early_stopping", early_stopping)
    check.flag("progress", progress)
    path = None if checkpoint is None else path_of(checkpoint)
    return run.run(epochs, early_stopping, progress, path)


class _Run:
    def __init__(
        self,
        model: Any,
        data: Any,
        loss: Any,
        optimizer: Any,
        validation: Any,
        batch_size: Any,
        tbptt: Any,
        stateful: Any,
        clip: Any,
        rng: Any,
    ) -> None:
        if not isinstance(model, Layer | Sequential):
            raise TypeError(f"model is a {type(model).__name__}, wanted a layer or a Sequential")
        if not callable(loss) or isinstance(loss, type):
            raise TypeError(f"loss is {loss!r}, wanted one of fastrnn.train's, as MeanSquare()")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {optimizer!r}, wanted one of fastrnn.train's, as Adam()")
        self.model, self.loss = model, loss
        self.optimizer: Optimizer = Adam() if optimizer is None else optimizer
        modules = [model] if isinstance(model, Layer) else list(model)
        tokens = isinstance(modules[0], Embedding)
        self.each_step = not any(isinstance(module, Pool) for module in modules)
        self.batch_first = any(m.batch_first for m in modules if isinstance(m, Layer))
        self.data = Data("data", data, model.dtype, tokens)
        self.validation = None
        if validation is not None:
            self.validation = Data("validation", validation, model.dtype, tokens)
        for one in (self.data, self.validation):
            if one is not None and self.each_step:
                one.check_each_step()
        self.batch_size = check.size("batch_size", batch_size)
        self.tbptt, self.stateful = tbptt, check.flag("stateful", stateful)
        if tbptt is not None and not self.each_step:
            raise ValueError("tbptt wants a target for each step, and the model has a Pool")
        if self.stateful and len(self.data) % self.batch_size:
            raise ValueError(
                f"stateful wants batches of one size: {len(self.data)} sequences make none of "
                f"{self.batch_size}"
            )
        self.clip = check.clip("clip", clip)
        self.rng = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
        self.history = History()
        self.best = dict(model.parameters)
        self._states: Any = None

    def run(self, epochs: int, patience: int | None, shown: bool, path: Path | None) -> History:
        if path is not None and path.exists():
            checkpoints.load(path, self)
        history = self.history
        history.stopped = ""
        # What is not finite is told by DivergenceError, once.
        with np.errstate(all="ignore"), Progress(shown, epochs, history) as bar:
            while history.epochs < epochs:
                if patience is not None and history.waited() >= patience:
                    history.stopped = f"no better epoch among the last {patience}"
                    break
                self._epoch(bar)
                if path is not None:
                    checkpoints.save(path, self)
        history.stopped = history.stopped or f"all {epochs} epochs are done"
        if history.best is not None:
            self.model.update(self.best)
        return history

    def _epoch(self, bar: Progress) -> None:
        start = perf_counter()
        number, history = self.history.epochs, self.history
        rng = None if self.stateful else self.rng
        total = weight = largest = 0.0
        rate, self._states = self.optimizer.rate, None
        order = self.data.order(self.batch_size, rng)
        bar.begin(number, len(self.data))
        for step, numbers in enumerate(order):
            batch = self.data.batch(numbers, self.each_step)
            for value, share, gradients in self._train(batch):
                rate = self.optimizer.rate
                norm = self._step(value, gradients, number, step)
                largest = max(largest, norm)
                total, weight = total + value * share, weight + share
            bar.advance(len(numbers), batch.steps, total / max(weight, 1e-300))
        mean = total / max(weight, 1e-300)
        found = None if self.validation is None else self._evaluate(self.validation)
        self.optimizer.schedule.observe(mean if found is None else found)
        if history.note(mean, found, rate, largest, perf_counter() - start):
            self.best = dict(self.model.parameters)
        bar.end()

    def _step(self, value: float, gradients: Mapping[str, Array], epoch: int, step: int) -> float:
        """Change the parameters; the norm of the gradients."""
        if self.clip:
            gradients, norm = clip_by_norm(gradients, self.clip)
        else:
            norm = norm_of(gradients)
        told = ""
        if not np.isfinite(value):
            told = f"the loss is {value}"
        elif not np.isfinite(norm):
            told = f"the norm of the gradients is {norm}"
        else:
            try:
                self.optimizer.step(self.model, gradients)
            except NotFiniteError as error:
                told = str(error).partition(" at step")[0]
        if told:
            self.model.update(self.best)
            raise DivergenceError(
                f"{told} in epoch {epoch}, step {step}; the model has its best parameters again. A "
                f"rate lower than {self.optimizer.rate:g}, or clip=1.0, keeps it finite",
                self.history, epoch, step,
            )  # fmt: skip
        return norm

    def _train(self, batch: Batch) -> Iterator[tuple[float, float, Mapping[str, Array]]]:
        """Losses, how much each counts, and gradients: one, or of truncated BPTT one a window."""
        x, begin = self._laid(batch.x), self._states if self.stateful else None
        if self.tbptt is None:
            y, self._states, tape = self.model.forward(
                x, begin, lengths=batch.lengths, rng=self.rng
            )
            value, share, dy = self._loss(y, batch, slice(None))
            yield value, share, self.model.backward(cast(Any, tape), dy).parameters
            return
        for window in truncated(
            self.model, x, begin, tbptt=self.tbptt, rng=self.rng, lengths=batch.lengths
        ):
            self._states = window.state
            value, share, dy = self._loss(window.y, batch, window.steps)
            if share:  # else all sequences have ended
                yield value, share, window.backward(dy)

    def _loss(self, y: Array, batch: Batch, steps: slice) -> tuple[float, float, Array]:
        """The loss of some steps, how much it counts, and the gradient of y."""
        weight = batch.weight
        if not self.each_step:
            value, dy = self.loss(y, batch.target, weight=weight)
            return value, float(len(y)) if weight is None else float(weight.sum()), dy
        first = y.swapaxes(0, 1) if self.batch_first else y
        target, mask = batch.target[steps], None
        many = float(first.shape[0] * first.shape[1])
        if batch.lengths is not None:
            start = steps.start or 0
            mask = np.arange(start, start + len(first))[:, None] < batch.lengths
            many = float((mask * (1.0 if weight is None else weight)).sum())
        elif weight is not None:
            many = float(len(first) * weight.sum())
        value, dy = self.loss(first, target, weight=weight, mask=mask)
        return value, many, np.ascontiguousarray(dy.swapaxes(0, 1)) if self.batch_first else dy

    def _laid(self, x: Array) -> Array:
        return np.ascontiguousarray(x.swapaxes(0, 1)) if self.batch_first else x

    def _evaluate(self, data: Data) -> float:
        """The mean loss, without dropout."""
        total = weight = 0.0
        for batch in data.batches(self.batch_size, self.each_step, None):
            y, _ = self.model(self._laid(batch.x), lengths=batch.lengths)
            value, share, _ = self._loss(y, batch, slice(None))
            total, weight = total + value * share, weight + share
        return total / max(weight, 1e-300)
