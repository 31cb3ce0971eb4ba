"""The classifier: a label of each sequence, or of each step."""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from fastrnn import train
from fastrnn.arrays import Array
from fastrnn.sklearn import targets
from fastrnn.sklearn.network import Network, as_given, chosen
from fastrnn.sklearn.sequences import Sequences, read
from fastrnn.sklearn.weighing import Weighed, counts


class RNNClassifier(ClassifierMixin, Network):  # type: ignore[misc]
    """A recurrent network that tells classes of sequences: layers, pooling, linear, softmax.

        classifier = RNNClassifier("gru", (64,), epochs=30, random_state=0)
        classifier.fit(sequences, labels).predict_proba(others)     # (N, classes)

    X, wherever it is asked for: N sequences, as an array (N, T, I), or (N, T) of one value a step;
    a list of arrays (T_i, I) or (T_i,), of any lengths; with `embedding` tokens, integers or
    strings, in lists or an array (N, T); with `group` a DataFrame.
    y: (N,) labels of sequences; with pooling=None one of each step, laid out like X. Of a frame y
    may have the label of each row.

    cell: "lstm", "gru", "rnn" and others that `fastrnn bench --cell` takes, one of
        `fastrnn.cells` ("MinGRU"), "module:Name", or a class of layers, of one's own too.
    hidden_sizes: the width of each layer, from the first on; a number for one layer.
    bidirectional: have each layer run in both directions.
    dropout: between layers and before the linear one; input_dropout: of the inputs. variational:
        one mask for all steps of a sequence.
    pooling: what of the last layer's steps is taken: "last", "mean", "max"; None for a result at
        each step.
    embedding: the size of the vectors of tokens; None where X holds values.
    group: the column of a DataFrame that says which sequence a row belongs to; sequences come in
        the order of their first rows.
    padding: the value that fills up the ends of sequences in an array, also numpy.nan: steps at an
        end that hold nothing else are left out. None where nothing does.
    standardize: have values of mean 0 and standard deviation 1, over all steps of the (first) fit.
    optimizer: "adam", "adamw", "rmsprop", "sgd", with learning_rate, a number or a schedule of
        `fastrnn.train`; or an optimiser of `fastrnn.train`, of which a copy is used.
    epochs, batch_size, clip, tbptt: as `fastrnn.train.fit` has them; tbptt wants pooling=None.
    early_stopping: end after so many epochs without a better one on validation_fraction of the
        sequences, held back; the best epoch's parameters stay. None for no such thing.
    class_weight: a dictionary from labels to weights, "balanced", or None.
    device, dtype: of the layers; "float32" or "float64". verbose: show a bar, on a terminal.
    random_state: of the parameters, the order and dropout.

    After a fit: `classes_`, `model_` (a `fastrnn.Sequential`, which takes standardised values),
    `history_` (a `fastrnn.train.History`), `n_features_in_` (T of a table (N, T), else I),
    `feature_names_in_`, `vocabulary_`.

    Raises TypeError or ValueError for wrong parameters and data, and `train.DivergenceError` where
    the loss is no longer finite; the estimator is then as it was before the call.
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
        optimizer: Any = "adam",
        learning_rate: Any = 5e-3,
        epochs: int = 50,
        batch_size: int = 32,
        clip: float | None = 1.0,
        tbptt: tuple[int, int] | None = None,
        early_stopping: int | None = None,
        validation_fraction: float = 0.1,
        class_weight: Any = None,
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
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.clip = clip
        self.tbptt = tbptt
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.device = device
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a network of fresh parameters.

        X, y: as the class tells. sample_weight (N,): how much each sequence counts.
        """
        with self._all_or_nothing():
            x, labels = self._read(X, y, True)
            weight = targets.weight_of(sample_weight, x)
            self.classes_ = np.unique(_flat(labels))
            rows = self._prepared(x, weight, True)
            places = self._places(labels, x)
            self._new(self._width, len(self.classes_))
            loss, epochs = self._entropy(rows, places, weight), self._epochs()
            if self.early_stopping is None:
                self._train((rows, places, weight), loss, epochs)
                return self
            strata = places if isinstance(places, np.ndarray) else None
            data = [
                (chosen(rows, some), chosen(places, some), None if weight is None else weight[some])
                for some in self._held(len(rows), strata)
            ]
            self._train(data[0], loss, epochs, data[1], self.early_stopping)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch more, on these sequences.

        classes: all labels that there will ever be, told in the first call, or known from a fit.
        Scaling and vocabulary are those of the first call.
        """
        with self._all_or_nothing():
            first = not hasattr(self, "model_")
            if first and classes is None:
                raise ValueError("classes is None, wanted all labels in the first call")
            if classes is not None:
                told = np.unique(column_or_1d(classes))
                if not first and not np.array_equal(told, self.classes_):
                    raise ValueError(f"classes is {told}, it was {self.classes_} before")
            x, labels = self._read(X, y, first)
            weight = targets.weight_of(sample_weight, x)
            if first:
                self.classes_ = told
            places = self._places(labels, x)
            rows = self._prepared(x, weight, first)
            if first:
                self._new(self._width, len(self.classes_))
            self._train((rows, places, weight), self._entropy(rows, places, weight), 1)
        return self

    def predict_proba(self, X: Any) -> Any:
        """The probabilities of the classes, (N, C) in the order of `classes_`.

        With pooling=None (N, T, C), or a list of (T_i, C).
        """
        logits, x = self._logits(X)
        return self._each(lambda y: np.exp(_log_softmax(y)), logits, x)

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithms of the probabilities."""
        logits, x = self._logits(X)
        return self._each(_log_softmax, logits, x)

    def predict(self, X: Any) -> Any:
        """The most likely class of each sequence, (N,); with pooling=None of each step."""
        logits, x = self._logits(X)
        return self._each(lambda y: self.classes_[y.argmax(-1)], logits, x)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of labels that are right; with pooling=None, of all steps."""
        self._check_fitted()
        x, labels = self._read(X, y, False)
        weight = targets.weight_of(sample_weight, x)
        found = self.predict(X)
        if self.pooling is None and weight is not None:
            weight = np.repeat(weight, x.lengths)
        return float(accuracy_score(_flat(labels), _flat(found), sample_weight=weight))

    def _read(self, X: Any, y: Any, reset: bool) -> tuple[Sequences, Any]:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None"
            )
        x = read(self, X, reset)
        if self.pooling is None:
            labels: Any = targets.of_steps("y", y, x)
            check_classification_targets(_flat(labels))
            return x, labels
        labels = column_or_1d(targets.of_sequences("y", y, x), warn=True)
        check_classification_targets(labels)
        return x, labels

    def _places(self, labels: Any, x: Sequences) -> Any:
        """The numbers of labels among the classes."""

        def places(labels: Array) -> Array:
            new = np.setdiff1d(labels, self.classes_)
            if new.size:
                raise ValueError(
                    f"y has the new label {new.tolist()[0]!r}: classes are {self.classes_}, as the "
                    "first call told them; fit anew for others"
                )
            found: Array = np.searchsorted(self.classes_, labels)
            return found

        if self.pooling is None:
            return targets.mapped(places, labels, x.lengths)
        return places(labels)

    def _entropy(self, rows: list[Array], places: Any, weight: Array | None) -> Any:
        """Cross-entropy, in which sequences and classes count as they are to."""
        if weight is None and self.class_weight is None:
            return train.CrossEntropy()
        many = counts(rows, self.pooling is None)
        all_places = _flat(places)
        of_class = None
        if self.class_weight is not None:
            each = None if weight is None else np.repeat(weight, many)
            of_class = self._of_class(np.bincount(all_places, each, len(self.classes_)))
        return Weighed(train.CrossEntropy(), many, weight, of_class, all_places)

    def _of_class(self, found: Array) -> Array:
        """The weights of classes that are found so often."""
        given = self.class_weight
        if isinstance(given, str) and given == "balanced":
            balanced: Array = found.sum() / (len(found) * np.where(found > 0, found, 1))
            return balanced
        if not isinstance(given, dict):
            raise ValueError(f"class_weight is {given!r}, wanted a dictionary, 'balanced' or None")
        for label, value in given.items():
            if label not in self.classes_:
                raise ValueError(f"class_weight has {label!r}, wanted of classes {self.classes_}")
            if not 0 <= value < np.inf:
                raise ValueError(f"class_weight of {label!r} is {value!r}, wanted 0 or more")
        return np.array([given.get(label, 1.0) for label in self.classes_], np.float64)

    def _logits(self, X: Any) -> tuple[list[Array], Sequences]:
        self._check_fitted()
        x = read(self, X, False)
        return self._outputs(self._prepared(x, None, False)), x

    def _each(self, function: Any, logits: list[Array], x: Sequences) -> Any:
        if self.pooling is not None:
            return function(np.stack(logits))
        return as_given(targets.mapped(function, logits, x.lengths), x)


def _flat(labels: Any) -> Array:
    """All labels, of a list of arrays too."""
    if isinstance(labels, np.ndarray):
        return labels.reshape(-1)
    return np.concatenate([np.asarray(one).reshape(-1) for one in labels])


def _log_softmax(logits: Array) -> Array:
    y = logits.astype(np.float64)
    y -= y.max(-1, keepdims=True)
    found: Array = y - np.log(np.exp(y).sum(-1, keepdims=True))
    return found
