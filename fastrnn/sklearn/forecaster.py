"""The forecaster: the next steps of series, all at once or one after the other."""

from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.metrics import r2_score

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.sklearn import targets
from fastrnn.sklearn.network import TOGETHER, Network
from fastrnn.sklearn.scaling import Scaling
from fastrnn.sklearn.sequences import Sequences, beside, check_finite, read
from fastrnn.train.data import padded


class RNNForecaster(Network):
    """A recurrent network that continues series: layers and a linear one, trained at every step.

        forecaster = RNNForecaster(12, "gru", window=100, random_state=0).fit([series])
        forecaster.predict([series])                    # (1, 12): what comes next

    X: N series, as `RNNClassifier` takes sequences: (N, T, K) of K values a step, all of which are
    forecast, or (N, T), or a list of arrays of any lengths, or with `group` a DataFrame. One series
    is a list of one. What is fitted on a table (N, T) takes tables of T steps, and lists of any.
    exogenous: inputs (N, T, E), a list of arrays, or with `group` a DataFrame, that are known ahead
    of the steps that they belong to, as a calendar's: in `fit` as long as the series, in `predict`
    `horizon` steps longer.

    horizon: how many steps are forecast.
    strategy: "direct", a network that gives all of them at once, from the exogenous inputs of all;
        or "recursive", one that gives the next step, and is given its own forecasts from there on.
    window: train on pieces of so many steps, each begun anew; on whole series if None.
    tbptt: (k1, k2), a step of the optimiser every k1 steps of a piece, whose gradients reach back
        k2 steps.
    early_stopping: by the last validation_fraction of the steps of each series, held back.
    loss: as that of `RNNRegressor`. Other parameters, attributes and errors: as `RNNClassifier`.

    Both strategies: Ben Taieb, Bontempi, Atiya and Sorjamaa 2012, "A review and comparison of
    strategies for multi-step ahead time series forecasting", section 2 (the direct one with all
    outputs in one network is called MIMO there).
    """

    def __init__(
        self,
        horizon: int = 1,
        cell: Any = "lstm",
        hidden_sizes: Any = (64,),
        *,
        strategy: str = "direct",
        window: int | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        variational: bool = False,
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
        self.horizon = horizon
        self.cell = cell
        self.hidden_sizes = hidden_sizes
        self.strategy = strategy
        self.window = window
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.variational = variational
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

    def fit(self, X: Any, y: Any = None, exogenous: Any = None, sample_weight: Any = None) -> Self:
        """Train a network of fresh parameters.

        X, exogenous: as the class tells. y: not used, there for pipelines. sample_weight (N,): how
        much each series counts.
        """
        with self._all_or_nothing():
            series, weight = self._begin(X, exogenous, sample_weight, True)
            epochs = self._epochs()
            if self.early_stopping is None:
                self._train_on(self._pieces(series, weight), epochs)
                return self
            share = check.probability("validation_fraction", self.validation_fraction)
            least = self._ahead() + 1
            ends = [max(least, round(share * len(x))) for x, _ in series]
            if any(len(x) < end + least for (x, _), end in zip(series, ends, strict=True)):
                raise ValueError(
                    f"early_stopping holds back at least {least} steps of each series, and of one "
                    "too few are left to train on: wanted longer series, or None"
                )
            tails = [(x[-n:], e[-n:]) for (x, e), n in zip(series, ends, strict=True)]
            heads = [(x[:-n], e[:-n]) for (x, e), n in zip(series, ends, strict=True)]
            self._train_on(
                self._pieces(heads, weight), epochs, self._pieces(tails, weight),
                self.early_stopping,
            )  # fmt: skip
        return self

    def partial_fit(
        self, X: Any, y: Any = None, exogenous: Any = None, sample_weight: Any = None
    ) -> Self:
        """Train one epoch more, on these series; scaling is that of the first call."""
        with self._all_or_nothing():
            first = not hasattr(self, "model_")
            series, weight = self._begin(X, exogenous, sample_weight, first)
            self._train_on(self._pieces(series, weight), 1)
        return self

    def predict(self, X: Any, exogenous: Any = None) -> Array:
        """The `horizon` steps behind each series: (N, horizon, K), or (N, horizon) of (N, T).

        exogenous: of all steps of the series and of those that are forecast.
        """
        self._check_fitted()
        return self._forecast(read(self, X, False), exogenous)

    def score(self, X: Any, y: Any = None, exogenous: Any = None) -> float:
        """R² of forecasts of the last `horizon` steps of each series from those before them.

        Of all values together. y: not used.
        """
        self._check_fitted()
        x = read(self, X, False, self.horizon_ + 1)
        wanted = np.stack([one[-self.horizon_ :] for one in x.rows])
        if wanted.size < 2:
            raise ValueError("X has one step to score by, and R² wants two: give more series")
        before = replace(x, rows=[one[: -self.horizon_] for one in x.rows])
        return float(r2_score(wanted.reshape(-1), self._forecast(before, exogenous).reshape(-1)))

    def _forecast(self, x: Sequences, exogenous: Any) -> Array:
        values = self.input_scaling_.apply("X", x.rows, self._float())
        more = self._exogenous(exogenous, x, self.horizon_, False)
        order = np.argsort(x.lengths, kind="stable")
        found = np.empty((len(x), self.horizon_, self._width))
        for some in np.split(order, range(TOGETHER, len(x), TOGETHER)):
            found[some] = self._ahead_of([values[k] for k in some], [more[k] for k in some])
        forecast = self.input_scaling_.undo(found)
        return forecast[..., 0] if x.flat else forecast

    def _ahead(self) -> int:
        """The steps that the network gives at once."""
        return self.horizon_ if self.strategy_ == "direct" else 1

    def _begin(
        self, X: Any, exogenous: Any, sample_weight: Any, first: bool
    ) -> tuple[list[tuple[Array, Array]], Array | None]:
        """Scaled series with their exogenous inputs; in a first call a network for them."""
        if first:
            self.horizon_ = check.size("horizon", self.horizon)
            self.strategy_ = check.choice("strategy", self.strategy, ("direct", "recursive"))
        x = read(self, X, first, self._ahead() + 1)
        weight = targets.weight_of(sample_weight, x)
        values = self._prepared(x, weight, first)
        more = self._exogenous(exogenous, x, 0, first, weight)
        if first:
            ahead = self._ahead()
            self._new(self._width + ahead * self._exogenous_width, ahead * self._width)
        return list(zip(values, more, strict=True)), weight

    def _exogenous(
        self, given: Any, x: Sequences, ahead: int, first: bool, weight: Array | None = None
    ) -> list[Array]:
        """Scaled exogenous inputs (T, E), of no values where there are none."""
        if first:
            self._exogenous_width = 0
        elif (given is None) != (self._exogenous_width == 0):
            had = f"{self._exogenous_width} values a step" if given is None else "none"
            raise ValueError(
                f"exogenous is {'None' if given is None else 'given'}, fitted was {had}"
            )
        lengths = x.lengths + ahead
        if given is None:
            return [np.zeros((T, 0), self._float()) for T in lengths]
        rows = beside("exogenous", given, x, self.group)
        width = rows[0].shape[1] if first else self._exogenous_width
        for k, (one, T) in enumerate(zip(rows, lengths, strict=True)):
            if one.shape != (T, width):
                raise ValueError(
                    f"sequence {k} of exogenous has shape {one.shape}, wanted "
                    f"{(int(T), width)}: in predict it goes on for the steps that are forecast"
                )
        check_finite("exogenous", rows)
        if first:
            standardize = check.flag("standardize", self.standardize)
            self._exogenous_width = width
            self.exogenous_scaling_ = Scaling.of("exogenous", rows, weight, standardize)
        return self.exogenous_scaling_.apply("exogenous", rows, self._float())

    def _inputs(self, x: Array, more: Array, steps: int) -> Array:
        """At each of some steps the series, and the exogenous inputs of those it is to give."""
        ahead = [more[j : j + steps] for j in range(1, self._ahead() + 1)]
        return np.concatenate([x[:steps], *ahead], 1)

    def _pieces(self, series: list[tuple[Array, Array]], weight: Array | None) -> Any:
        """Inputs, targets and weights of all pieces that are trained on."""
        window = None if self.window is None else check.size("window", self.window)
        inputs: list[Array] = []
        wanted: list[Array] = []
        counts: list[float] = []
        for k, (x, more) in enumerate(series):
            steps = len(x) - self._ahead()
            given = self._inputs(x, more, steps)
            behind = np.concatenate([x[j : j + steps] for j in range(1, self._ahead() + 1)], 1)
            piece = min(steps, window or steps)
            for start in [*range(0, steps - piece, piece), steps - piece]:
                inputs.append(given[start : start + piece])
                wanted.append(behind[start : start + piece])
                counts.append(1.0 if weight is None else weight[k])
        return inputs, wanted, None if weight is None else np.array(counts)

    def _train_on(
        self, data: Any, epochs: int, validation: Any = None, patience: Any = None
    ) -> None:
        self._train(data, self._weighed(data[0], data[2]), epochs, validation, patience)

    def _ahead_of(self, rows: list[Array], more: list[Array]) -> Array:
        """Scaled forecasts (B, horizon, K)."""
        given = [self._inputs(x, e, len(x)) for x, e in zip(rows, more, strict=True)]
        x, lengths = padded(given)
        each = np.arange(len(rows))
        y, states = self.model_(x, lengths=lengths)
        last = y[-1] if lengths is None else y[lengths - 1, each]
        if self.strategy_ == "direct":
            whole: Array = last.reshape(len(rows), self.horizon_, self._width)
            return whole
        found = [last]
        for j in range(1, self.horizon_):
            known = np.stack([e[len(x) + j] for x, e in zip(rows, more, strict=True)])
            y, states = self.model_(np.concatenate([last, known], 1)[None], states)
            last = y[0]
            found.append(last)
        return np.stack(found, 1)
