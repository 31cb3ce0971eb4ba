"""What the estimators share: the network, its training, and what is kept of it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastrnn import check, train
from fastrnn.arrays import Array
from fastrnn.models.classes import layer_of
from fastrnn.models.dropout import Dropout
from fastrnn.models.embedding import Embedding
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.pool import Pool
from fastrnn.models.sequential import Sequential
from fastrnn.sklearn.scaling import Scaling
from fastrnn.sklearn.sequences import Sequences
from fastrnn.sklearn.vocabulary import known, numbers
from fastrnn.sklearn.weighing import Weighed, counts
from fastrnn.train.data import padded

_OPTIMIZERS = {
    "adam": train.Adam, "adamw": train.AdamW, "rmsprop": train.RMSProp, "sgd": train.SGD,
}  # fmt: skip
_LOSSES = {"mean_square": train.MeanSquare, "huber": train.Huber}
#: Sequences that inference takes together.
TOGETHER = 256


class Network(BaseEstimator):  # type: ignore[misc]
    """A recurrent network and its training, as an estimator's parameters tell."""

    #: those of the estimators that do not have them
    bidirectional: Any = False
    pooling: Any = None
    embedding: Any = None
    group: Any = None
    padding: Any = None
    tbptt: Any = None

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Have the estimator as it was, where a fit ends with an error or an interrupt."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _new(self, width: int, outputs: int) -> None:
        """A network with fresh parameters, and what trains it."""
        state = check_random_state(self.random_state)
        self._generator = np.random.default_rng(state.randint(2**31, size=4))
        self.model_ = self._network(width, outputs)
        self._optimizer = self._fresh_optimizer()
        self.history_ = train.History()

    def _network(self, width: int, outputs: int) -> Sequential:
        sizes = self.hidden_sizes
        sizes = tuple(sizes) if isinstance(sizes, list | tuple | np.ndarray) else (sizes,)
        if not sizes:
            raise ValueError("hidden_sizes is empty, wanted a width for each layer, as (64,)")
        options: dict[str, Any] = {"dtype": str(self._float()), "device": self.device}
        dropout = check.probability("dropout", self.dropout)
        before = check.probability("input_dropout", self.input_dropout)
        variational = check.flag("variational", self.variational)
        modules: list[Any] = []
        if self.embedding is not None:
            D = check.size("embedding", self.embedding)
            modules.append(Embedding(len(self.vocabulary_) + 1, D, 0, seed=self._seed(), **options))
            width = D
        if before:
            modules.append(Dropout(before, variational, seed=0, **options))
        for k, size in enumerate(sizes):
            if k and dropout:
                modules.append(Dropout(dropout, variational, seed=0, **options))
            H = check.size("hidden_sizes", size)
            layer = self._layer(width, H, options)
            modules.append(layer)
            width = layer.output_size
        if self.pooling is not None:
            modules.append(
                Pool(check.choice("pooling", self.pooling, ("last", "mean", "max")), **options)
            )
        if dropout:  # behind a Pool there is no time to share a mask over
            modules.append(
                Dropout(dropout, variational and self.pooling is None, seed=0, **options)
            )
        modules.append(Linear(width, outputs, seed=self._seed(), **options))
        return Sequential(*modules)

    def _layer(self, width: int, size: int, options: dict[str, Any]) -> Layer[Any]:
        cell = self.cell
        more = {
            "bidirectional": check.flag("bidirectional", self.bidirectional),
            "seed": self._seed(), **options,
        }  # fmt: skip
        if isinstance(cell, str):
            return layer_of(cell, width, size, **more)
        if isinstance(cell, type) and issubclass(cell, Layer):
            return cell(width, size, **more)
        raise TypeError(
            f"cell is {cell!r}, wanted a name, as 'lstm', 'MinGRU' or 'module:Name', or a class of "
            "layers, as fastrnn.GRU or what @fastrnn.cell has made"
        )

    def _seed(self) -> int:
        return int(self._generator.integers(2**31))

    def _fresh_optimizer(self) -> train.Optimizer:
        given: Any = self.optimizer
        found: train.Optimizer
        if isinstance(given, train.Optimizer):
            found = copy.deepcopy(given)
            return found
        make: Any = _OPTIMIZERS[check.choice("optimizer", given, list(_OPTIMIZERS))]
        found = make(copy.deepcopy(self.learning_rate))
        return found

    def _train(
        self, data: Any, loss: Any, epochs: int, validation: Any = None, patience: Any = None
    ) -> None:
        """Train on; on copies, so that the network is as it was where that fails."""
        model, optimizer = copy.deepcopy((self.model_, self._optimizer))
        generator = copy.deepcopy(self._generator)
        with np.errstate(all="ignore"):  # what diverges is told by an error
            found = train.fit(
                model, data, loss, optimizer, epochs, batch_size=self.batch_size,
                validation=validation, early_stopping=patience, tbptt=self.tbptt, clip=self.clip,
                rng=generator, progress=self.verbose,
            )  # fmt: skip
        history = copy.deepcopy(self.history_)
        for name in ("loss", "validation", "rate", "norm", "seconds"):
            getattr(history, name).extend(getattr(found, name))
        if found.best is not None:
            history.best = self.history_.epochs + found.best
        history.stopped = found.stopped
        self.model_, self._optimizer, self._generator = model, optimizer, generator
        self.history_ = history

    def _epochs(self) -> int:
        return check.size("epochs", self.epochs)

    def _held(self, many: int, strata: Array | None = None) -> tuple[Array, Array]:
        """The numbers of the sequences to train on, and of those to validate by."""
        if many < 2:
            raise ValueError("early_stopping wants sequences to hold back, and X has one alone")
        share = check.probability("validation_fraction", self.validation_fraction)
        held = min(many - 1, max(1, round(share * many)))
        order = self._generator.permutation(many)
        if strata is not None:  # evenly among the classes
            order = order[np.argsort(strata[order], kind="stable")]
        places = ((np.arange(held) + 0.5) * many / held).astype(int)
        return np.sort(np.delete(order, places)), np.sort(order[places])

    def _prepared(self, x: Sequences, weight: Array | None, reset: bool) -> list[Array]:
        """What the network is given: scaled values of its float type, or numbers of tokens."""
        if self.embedding is not None:
            if reset:
                self.vocabulary_ = known(x.rows)
            return numbers(x.rows, self.vocabulary_)
        if reset:
            standardize = check.flag("standardize", self.standardize)
            self.input_scaling_ = Scaling.of("X", x.rows, weight, standardize)
        return self.input_scaling_.apply("X", x.rows, self._float())

    def _outputs(self, rows: Sequence[Array]) -> list[Array]:
        """What the network gives for each sequence: (O,), or without pooling (T_i, O)."""
        model, found = self.model_, [np.empty(0)] * len(rows)
        lengths = np.array([len(one) for one in rows])
        order = np.argsort(lengths, kind="stable")
        for some in np.split(order, range(TOGETHER, len(rows), TOGETHER)):
            x, its = padded([rows[k] for k in some])
            y, _ = model(x, lengths=its)
            for b, k in enumerate(some):
                found[k] = y[b] if self.pooling is not None else y[: lengths[k], b]
        return found

    def _weighed(self, rows: Sequence[Array], weight: Array | None) -> Any:
        """The loss of values, in which sequences count as they are to."""
        given: Any = self.loss
        if not isinstance(given, train.Loss):
            given = _LOSSES[check.choice("loss", given, list(_LOSSES))]()
        if len(getattr(given, "quantiles", ())) > 1:
            raise ValueError(
                f"loss has the quantiles {given.quantiles}, wanted one: fit an estimator for each"
            )
        if weight is None:
            return given
        return Weighed(given, counts(rows, self.pooling is None), weight)

    def _float(self) -> np.dtype[Any]:
        return np.dtype(check.choice("dtype", self.dtype, ("float32", "float64")))

    def _check_fitted(self) -> None:
        check_is_fitted(self, "model_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = self.embedding is not None
        tags.input_tags.allow_nan = bool(self.padding is not None and self.padding != self.padding)
        return tags


def as_given(found: list[Array], x: Sequences) -> Any:
    """What is given at each step, as one array where the sequences came as one."""
    return np.stack(found) if x.stacked else found


def chosen(values: Sequence[Any] | Array, places: Array) -> Any:
    """Some of the values, of an array or of a list."""
    return values[places] if isinstance(values, np.ndarray) else [values[k] for k in places]
