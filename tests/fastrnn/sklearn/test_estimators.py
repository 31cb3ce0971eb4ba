"""What scikit-learn asks of estimators, and what they share: searches, pickles, errors."""

import pickle
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("sklearn") is None:
    pytest.skip("needs scikit-learn", allow_module_level=True)

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import fastrnn
from fastrnn import train
from fastrnn.sklearn import RNNClassifier, RNNForecaster, RNNRegressor

#: Weights and repetitions are the same in exact numbers alone: scikit-learn compares to seven
#: places, all that float32 has. `test_weights_are_repetitions` leaves room for rounding.
INEXACT = {"check_sample_weight_equivalence_on_dense_data": "sums are of float32"}
SMALL = {"cell": "rnn", "hidden_sizes": (8,), "learning_rate": 0.03, "random_state": 0}


@pytest.mark.parametrize(
    "estimator",
    [
        RNNClassifier(epochs=5, **SMALL),
        RNNRegressor(epochs=12, **SMALL),
        RNNForecaster(epochs=2, **SMALL),
    ],
    ids=lambda one: type(one).__name__,
)
def test_scikit_learn_finds_nothing(estimator):
    found = check_estimator(estimator, expected_failed_checks=INEXACT, on_fail=None, on_skip=None)
    assert len(found) > 40
    failed = {one["check_name"]: one["exception"] for one in found if one["status"] == "failed"}
    assert not failed


def walks(many=60, least=4):
    """Sequences of several lengths, which way each goes, and how far."""
    rng = np.random.default_rng(0)
    ways = rng.integers(0, 2, many)
    found = [
        np.cumsum(rng.standard_normal((rng.integers(least, 12), 2)) + (2 * way - 1), 0)
        for way in ways
    ]
    return found, np.array(["down", "up"])[ways], np.array([one[-1, 0] for one in found])


@pytest.mark.parametrize("kind", [RNNClassifier, RNNRegressor])
def test_weights_are_repetitions(kind):
    x, labels, far = walks(12)
    y = labels if kind is RNNClassifier else far
    weight = np.random.default_rng(1).integers(0, 4, 12)
    options = {**SMALL, "epochs": 5, "batch_size": 100, "class_weight": "balanced"}
    if kind is RNNRegressor:
        del options["class_weight"]
    weighed = kind(**options).fit(x, y, sample_weight=weight)
    repeated = [one for one, many in zip(x, weight, strict=True) for _ in range(many)]
    same = kind(**options).fit(repeated, np.repeat(y, weight))
    ask = "predict_proba" if kind is RNNClassifier else "predict"
    np.testing.assert_allclose(
        getattr(weighed, ask)(x), getattr(same, ask)(x), rtol=2e-4, atol=2e-4
    )


def test_searches_pipelines_and_pickles():
    x, labels, _ = walks()
    search = GridSearchCV(
        RNNClassifier(epochs=6, **SMALL), {"hidden_sizes": [(2,), (8, 4)], "cell": ["rnn"]}, cv=3
    ).fit(x, labels)
    assert search.best_score_ > 0.8
    best = search.best_estimator_
    again = pickle.loads(pickle.dumps(best))
    assert np.array_equal(again.predict_proba(x), best.predict_proba(x))
    assert again.partial_fit(x, labels).history_.loss == best.partial_fit(x, labels).history_.loss
    assert len(again.history_.loss) == 7
    table = np.stack([one[:4, 0] for one in x])
    pipeline = make_pipeline(StandardScaler(), RNNClassifier(epochs=2, **SMALL))
    pipeline.set_output(transform="pandas").fit(table, labels)
    assert list(pipeline[-1].feature_names_in_) == ["x0", "x1", "x2", "x3"]
    assert pipeline[-1].n_features_in_ == 4


def test_what_was_fitted_is_a_model(tmp_path):
    """It goes to a file and comes back, and gives what the estimator gives of scaled values."""
    x, _, far = walks(20)
    regressor = RNNRegressor(epochs=2, **SMALL).fit(x, far)
    regressor.model_.save(tmp_path / "model.safetensors")
    model = fastrnn.load(tmp_path / "model.safetensors")
    scaled = regressor.input_scaling_.apply("x", x[:1], np.dtype(np.float32))
    y, _ = model(scaled[0][:, None])
    np.testing.assert_allclose(
        regressor.target_scaling_.undo(y)[0, 0], regressor.predict(x[:1])[0], rtol=1e-5
    )


def test_a_failed_fit_changes_nothing():
    x, labels, far = walks(20)
    for estimator, y in [
        (RNNClassifier(epochs=2, **SMALL), labels),
        (RNNRegressor(epochs=2, **SMALL), far),
    ]:
        estimator.fit(x, y)
        before, answers = dict(vars(estimator)), estimator.predict(x)
        estimator.set_params(optimizer="sgd", learning_rate=1e38, clip=None, epochs=30)
        with pytest.raises((train.DivergenceError, ValueError), match="lower"):
            estimator.fit(x, y)
        with pytest.raises(ValueError, match="20 sequences"):
            estimator.partial_fit(x, y[:-1])
        estimator.set_params(optimizer="adam", learning_rate=0.03, clip=1.0, epochs=2)
        assert vars(estimator) == before
        assert np.array_equal(estimator.predict(x), answers)


class Interrupting(train.MeanSquare):
    """A loss that someone loses patience with."""

    def __call__(self, *args, **options):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().__call__(*args, **options)


def test_an_interrupt_changes_nothing():
    x, _, far = walks(20)
    regressor = RNNRegressor(epochs=2, **SMALL).fit(x, far)
    parameters = regressor.model_.state_dict()
    regressor.set_params(loss=Interrupting(), batch_size=5)
    before = dict(vars(regressor))
    with pytest.raises(KeyboardInterrupt):
        regressor.partial_fit(x, far)
    assert vars(regressor) == before
    for name, value in regressor.model_.parameters.items():
        assert np.array_equal(value, parameters[name])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cell": "nothing"}, "no cell 'nothing'"),
        ({"cell": 3}, "cell is 3, wanted a name"),
        ({"hidden_sizes": ()}, "hidden_sizes is empty"),
        ({"hidden_sizes": (0,)}, "hidden_sizes is 0, wanted at least 1"),
        ({"pooling": "sum"}, "pooling is 'sum', wanted one of"),
        ({"optimizer": "newton"}, "optimizer is 'newton', wanted one of"),
        ({"learning_rate": -1}, "rate is -1, wanted more than 0"),
        ({"dropout": 2}, "dropout is 2, wanted a number from 0 to 1"),
        ({"dtype": "float16"}, "dtype is 'float16', wanted one of"),
        ({"tbptt": (2, 4)}, "tbptt wants a target for each step"),
        ({"loss": train.Pinball()}, "fit an estimator for each"),
        ({"loss": "hinge"}, "loss is 'hinge', wanted one of"),
        ({"epochs": 0}, "epochs is 0, wanted at least 1"),
    ],
)
def test_wrong_parameters(options, told):
    x, _, far = walks(4)
    regressor = RNNRegressor(**{**SMALL, **options})
    with pytest.raises((TypeError, ValueError), match=told):
        regressor.fit(x, far)
    assert vars(regressor).keys() == vars(clone(regressor)).keys()


def test_cells_by_name_and_class():
    x, labels, _ = walks(8)
    found = [
        RNNClassifier(cell, (4,), epochs=1, random_state=0).fit(x, labels).predict_proba(x)
        for cell in ("lstm", fastrnn.LSTM)
    ]
    assert np.array_equal(*found)
    own = RNNClassifier(fastrnn.cells.MGU, (3, 2))
    assert own.get_params()["cell"] is fastrnn.cells.MGU
    own._generator = np.random.default_rng(0)
    network = own._network(2, 2)
    assert [type(one).__name__ for one in network] == ["MGU", "MGU", "Pool", "Linear"]


def test_groups_of_a_frame_in_cross_validation():
    pandas = pytest.importorskip("pandas")
    x, labels, _ = walks(30)
    lengths = [len(one) for one in x]
    frame = pandas.DataFrame(np.concatenate(x), columns=["a", "b"])
    frame["who"] = np.repeat([f"walk {k}" for k in range(30)], lengths)
    y = pandas.Series(np.repeat(labels, lengths))
    # As one reads them from a log: rows of one group need not stand together.
    order = np.random.default_rng(3).permutation(len(frame))
    order = order[np.argsort(np.concatenate([np.arange(n) for n in lengths])[order], kind="stable")]
    frame, y = frame.iloc[order], y.iloc[order]
    names = frame["who"].drop_duplicates()
    classifier = RNNClassifier(group="who", epochs=8, **SMALL)
    scores = cross_val_score(classifier, frame, y, cv=GroupKFold(3), groups=frame["who"])
    assert scores.mean() > 0.75
    classifier.fit(frame, y)
    assert list(classifier.feature_names_in_) == ["a", "b"]
    of_lists = RNNClassifier(epochs=8, **SMALL)
    places = [int(name.split()[1]) for name in names]
    of_lists.fit([x[k] for k in places], labels[places])
    assert np.array_equal(of_lists.predict_proba([x[k] for k in places]),
                          classifier.predict_proba(frame))  # fmt: skip
    assert classifier.score(frame, labels[places]) == classifier.score(frame, y)
    torn = y.to_numpy().copy()
    torn[-1] = "up" if torn[-1] == "down" else "down"
    with pytest.raises(ValueError, match=f"y differs within the sequence that row {len(y) - 1} of"):
        classifier.fit(frame, torn)
    for wrong, told in [
        (frame.drop(columns="who"), "X has no column 'who'"),
        (frame.to_numpy(), "X is a ndarray, wanted a DataFrame"),
        (frame.assign(who=[None, *frame["who"][1:]]), "column 'who' of X has missing values"),
        (frame.rename(columns={"a": "c"}), "feature names"),
    ]:
        with pytest.raises((TypeError, ValueError), match=told):
            classifier.predict(wrong)
