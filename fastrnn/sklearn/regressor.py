"""The regressor: values of each sequence, or of each step."""

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.sklearn import targets
from fastrnn.sklearn.network import Network, as_given, chosen
from fastrnn.sklearn.scaling import Scaling
from fastrnn.sklearn.sequences import Sequences, read
from fastrnn_kernels import handlers


class RNNRegressor(RegressorMixin, Network):  # type: ignore[misc]
    """A recurrent network that tells values of sequences: layers, pooling, linear.

        regressor = RNNRegressor("lstm", (64, 32), bidirectional=True, random_state=0)
        regressor.fit(sequences, values).predict(others)            # (N,) or (N, O)

    y: (N,) or (N, O), values of sequences; with pooling=None of each step, laid out like X. Of a
    frame y may have the values of each row.

    loss: "mean_square", "huber", or one of `fastrnn.train`, of standardised values.
    standardize: have both X and y of mean 0 and standard deviation 1 in training.

    X, all other parameters, attributes and errors: as those of `RNNClassifier`.
    """

    def __init__(
        self,
        cell: Any = "lstm",
        hidden_sizes: Any = (64,),
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        variational: bool = False,
        pooling: str | None = "last",
        embedding: int | None = None,
        group: Any = None,
        padding: Any = None,
        standardize: bool = True,
        loss: Any = "mean_square",
        optimizer: Any = "adam",
        learning_rate: Any = 5e-3,
        epochs: int = 50,
        batch_size: int = 32,
        clip: float | None = 1.0,
        tbptt: tuple[int, int] | None = None,
        early_stopping: int | None = None,
        validation_fraction: float = 0.1,
        device: str = "auto",
        dtype: str = "float32",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.hidden_sizes = hidden_sizes
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.variational = variational
        self.pooling = pooling
        self.embedding = embedding
        self.group = group
        self.padding = padding
        self.standardize = standardize
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.clip = clip
        self.tbptt = tbptt
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a network of fresh parameters.

        X, y: as the class tells. sample_weight (N,): how much each sequence counts.
        """
        with self._all_or_nothing():
            rows, wanted, weight = self._begin(X, y, sample_weight, True)
            loss, epochs = self._weighed(rows, weight), self._epochs()
            if self.early_stopping is None:
                self._train((rows, wanted, weight), loss, epochs)
                return self
            data = [
                (chosen(rows, some), chosen(wanted, some), None if weight is None else weight[some])
                for some in self._held(len(rows))
            ]
            self._train(data[0], loss, epochs, data[1], self.early_stopping)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch more, on these sequences.

        Scaling and vocabulary are those of the first call, or of a fit before.
        """
        with self._all_or_nothing():
            first = not hasattr(self, "model_")
            rows, wanted, weight = self._begin(X, y, sample_weight, first)
            self._train((rows, wanted, weight), self._weighed(rows, weight), 1)
        return self

    def predict(self, X: Any) -> Any:
        """Values (N,) or (N, O), as y had them; with pooling=None those of each step."""
        self._check_fitted()
        x = read(self, X, False)
        found = self._outputs(self._prepared(x, None, False))
        if self.pooling is not None:
            return self._given(np.stack(found))
        return as_given(targets.mapped(self._given, found, x.lengths), x)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination R², the mean of outputs; of steps if pooling=None."""
        self._check_fitted()
        x, values = self._read(X, y, False)
        weight = targets.weight_of(sample_weight, x)
        found = self.predict(X)
        if self.pooling is None:
            if weight is not None:
                weight = np.repeat(weight, x.lengths)
            found, values = np.concatenate(list(found)), np.concatenate(values)
        return float(r2_score(values, found, sample_weight=weight))

    def _begin(self, X: Any, y: Any, sample_weight: Any, first: bool) -> tuple[Any, Any, Any]:
        """What is trained on; of a first call with a fresh network for it."""
        x, values = self._read(X, y, first)
        weight = targets.weight_of(sample_weight, x)
        rows = self._prepared(x, weight, first)
        each = [_axis(one) for one in values] if self.pooling is None else _axis(values)[:, None]
        steps = list(each)  # (T_i, O), or (1, O) of a whole sequence
        width = steps[0].shape[1]
        if first:
            self._flat_target = np.ndim(values if self.pooling is not None else values[0]) == 1
            wanted = check.flag("standardize", self.standardize)
            self.target_scaling_ = Scaling.of("y", steps, weight, wanted)
            self._new(self._width, width)
        elif width != len(self.target_scaling_.mean):
            raise ValueError(f"y has {width} values, fitted were {len(self.target_scaling_.mean)}")
        scaled = self.target_scaling_.apply("y", steps, self._float())
        return rows, (scaled if self.pooling is None else np.concatenate(scaled)), weight

    def _read(self, X: Any, y: Any, reset: bool) -> tuple[Sequences, Any]:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None"
            )
        x = read(self, X, reset)
        if self.pooling is None:
            values: Any = [_numbers(one) for one in targets.of_steps("y", y, x)]
            shapes = {one.shape[1:] for one in values}
            if len(shapes) > 1:
                raise ValueError(f"y has values of different shapes at its steps: {shapes}")
        else:
            values = _numbers(targets.of_sequences("y", y, x))
        return x, values

    def _given(self, y: Array) -> Array:
        """Outputs of the network as y was given."""
        values = self.target_scaling_.undo(y)
        return values[:, 0] if self._flat_target else values

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _numbers(values: Array) -> Array:
    if values.ndim > 2:
        raise ValueError(f"y has values of shape {values.shape[1:]}, wanted (O,) or none")
    if values.dtype.kind not in "fiubOU":
        raise TypeError(f"y has dtype {values.dtype}, wanted numbers")
    try:
        found = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        handlers.pass_on(error)
        raise ValueError(f"y holds what is no number: {error}") from None
    if not np.isfinite(found).all():
        raise ValueError("y holds NaN or infinity")
    return found


def _axis(values: Array) -> Array:
    return values[:, None] if values.ndim == 1 else values
