"""Forms of inputs: arrays, lists, padding, tokens, a label at each step; and what is refused."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("sklearn") is None:
    pytest.skip("needs scikit-learn", allow_module_level=True)

import fastrnn
from fastrnn import train
from fastrnn.sklearn import RNNClassifier, RNNRegressor

SMALL = {"cell": "rnn", "hidden_sizes": (6,), "learning_rate": 0.02, "random_state": 0}
RNG = np.random.default_rng(0)
RAGGED = [RNG.standard_normal((n, 2)) for n in (3, 5, 4, 6, 3, 2)]
LABELS = np.array([0, 1, 0, 1, 1, 0])


def test_forms_of_the_same_sequences():
    whole = RNG.standard_normal((6, 5, 2))
    forms = [whole, whole.astype(np.float32).astype(np.float64), list(whole), whole.tolist()]
    lists = np.empty(6, object)
    lists[:] = list(whole)
    found = [RNNClassifier(epochs=2, **SMALL).fit(x, LABELS) for x in (*forms, lists)]
    for one in found:
        assert one.n_features_in_ == 2
        np.testing.assert_allclose(
            one.predict_proba(whole), found[0].predict_proba(whole), atol=1e-5
        )
    table = whole[..., 0]
    of_table = RNNClassifier(epochs=2, **SMALL).fit(table, LABELS)
    of_list = RNNClassifier(epochs=2, **SMALL).fit(list(table), LABELS)
    assert (of_table.n_features_in_, of_list.n_features_in_) == (5, 1)
    assert np.array_equal(of_table.predict_proba(table), of_list.predict_proba(table))
    assert of_list.predict(table[:, :3]).shape == (6,)
    with pytest.raises(ValueError, match="expecting 5 features"):
        of_table.predict(table[:, :3])


@pytest.mark.parametrize("padding", [np.nan, -1.0])
def test_padding_is_left_out(padding):
    padded = np.full((6, 8, 2), padding)
    for row, one in zip(padded, RAGGED, strict=True):
        row[: len(one)] = one
    ragged = RNNClassifier(epochs=3, dropout=0.2, variational=True, **SMALL).fit(RAGGED, LABELS)
    found = RNNClassifier(epochs=3, dropout=0.2, variational=True, padding=padding, **SMALL).fit(
        padded, LABELS
    )
    assert found.history_.loss == ragged.history_.loss
    assert np.array_equal(found.predict_proba(padded), ragged.predict_proba(RAGGED))
    for wrong in ("end", True):
        with pytest.raises(TypeError, match=r"padding is .*, wanted a number"):
            RNNClassifier(padding=wrong, **SMALL).fit(padded, LABELS)
    padded[2] = padding
    with pytest.raises(ValueError, match="sequence 2 of X has no steps"):
        found.predict(padded)


@pytest.mark.parametrize("words", [True, False])
def test_tokens(words):
    """Whether a sentence says no: 'not' is somewhere in it."""
    rng = np.random.default_rng(0)
    kinds = np.array(["a", "be", "see", "not"]) if words else np.array([7, 3, 12, -5])
    texts = [kinds[rng.integers(0, 4, rng.integers(2, 6))] for _ in range(80)]
    says = np.array([kinds[3] in text for text in texts])
    given = [text.tolist() for text in texts]
    classifier = RNNClassifier(embedding=4, pooling="max", epochs=12, **SMALL).fit(given, says)
    assert classifier.vocabulary_.tolist() == sorted(kinds.tolist())
    assert classifier.score(given, says) > 0.9
    assert np.array_equal(classifier.predict(texts), classifier.predict(given))
    new = ["never"] if words else [99]
    assert np.array_equal(
        classifier.predict_proba([new]), classifier.predict_proba([["seldom"] if words else [-99]])
    )
    assert not classifier.model_.parameters["0.weight"][0].any()
    for wrong, told in [
        (["not a"], "wanted a list of tokens"),
        ([[0.5]], "has dtype float64, wanted tokens"),
        ([[1] if words else ["a"]], "fitted were"),
        ([[]], "sequence 0 of X has no steps"),
    ]:
        with pytest.raises((TypeError, ValueError), match=told):
            classifier.predict(wrong)


@pytest.mark.parametrize("tbptt", [None, (2, 4)])
def test_a_label_and_a_value_at_each_step(tbptt):
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, 1)) for n in rng.integers(3, 9, 60)]
    sums = [np.cumsum(one[:, 0]) for one in x]
    signs = [np.where(one > 0, "plus", "minus") for one in sums]
    options = {**SMALL, "pooling": None, "tbptt": tbptt, "epochs": 20}
    classifier = RNNClassifier(**options).fit(x, signs)
    assert classifier.score(x, signs) > 0.85
    found = classifier.predict(x)
    assert [len(one) for one in found] == [len(one) for one in x]
    assert set(np.concatenate(found)) == {"plus", "minus"}
    regressor = RNNRegressor(**options).fit(x, sums)
    assert regressor.score(x, sums) > 0.8
    whole = rng.standard_normal((4, 5, 1))
    assert regressor.predict(whole).shape == (4, 5)
    assert classifier.predict_proba(whole).shape == (4, 5, 2)
    with pytest.raises(ValueError, match="wanted one at each step"):
        classifier.fit(x, [one[:-1] for one in signs])


def test_partial_fit_knows_its_classes():
    classifier = RNNClassifier(**SMALL)
    with pytest.raises(ValueError, match="wanted all labels in the first call"):
        classifier.partial_fit(RAGGED, LABELS)
    classifier.partial_fit(RAGGED, LABELS, classes=[0, 1, 2])
    for _ in range(30):
        classifier.partial_fit(RAGGED, LABELS)
    assert classifier.predict_proba(RAGGED).shape == (6, 3)
    assert classifier.history_.epochs == 31
    assert classifier.history_.loss[-1] < classifier.history_.loss[0] / 2
    before = dict(vars(classifier))
    with pytest.raises(ValueError, match="y has the new label 5"):
        classifier.partial_fit(RAGGED, [0, 1, 5, 0, 0, 0])
    with pytest.raises(ValueError, match=r"classes is \[0 1\], it was \[0 1 2\] before"):
        classifier.partial_fit(RAGGED, LABELS, classes=[0, 1])
    assert vars(classifier) == before


def test_early_stopping_holds_some_back():
    x = RAGGED * 5
    y = np.tile(LABELS, 5)
    classifier = RNNClassifier(
        epochs=60, early_stopping=2, validation_fraction=0.2, learning_rate=0.1,
        optimizer=train.SGD(0.5), cell="rnn", hidden_sizes=4, random_state=1,
    ).fit(x, y)  # fmt: skip
    history = classifier.history_
    assert len(history.validation) == len(history.loss)
    assert history.best == int(np.argmin(history.validation))
    assert classifier.optimizer.steps == 0  # a copy was used
    with pytest.raises(ValueError, match="X has one alone"):
        RNNRegressor(early_stopping=1, **SMALL).fit(RAGGED[:1], [1.0])


@pytest.mark.parametrize("pooling", ["last", None])
def test_weights_of_classes(pooling):
    x, y = RAGGED * 4, np.tile(LABELS, 4)
    labels = y if pooling else [np.full(len(one), k) for one, k in zip(x, y, strict=True)]
    options = {**SMALL, "pooling": pooling}
    heavy = RNNClassifier(epochs=10, class_weight={0: 100.0, 1: 0.01}, **options).fit(x, labels)
    assert not np.concatenate([np.ravel(one) for one in heavy.predict(x)]).any()
    # In one batch each by itself, where a batch's mean would hide what it counts.
    weight = np.where(y == 0, 3.0, 1.0)
    by_class = RNNClassifier(epochs=2, class_weight={0: 3.0}, batch_size=1, **options)
    by_class.fit(x, labels)
    by_sequence = RNNClassifier(epochs=2, batch_size=1, **options)
    # Scaling is by weighed values: no scaling, then.
    for one in (by_class, by_sequence):
        one.set_params(standardize=False, optimizer="sgd", clip=None)
    found = by_class.fit(x, labels).model_.parameters
    same = by_sequence.fit(x, labels, sample_weight=weight).model_.parameters
    plain = by_sequence.fit(x, labels).model_.parameters
    for name, value in found.items():
        np.testing.assert_allclose(same[name], value, rtol=1e-5, atol=1e-6)
        assert np.abs(plain[name] - value).max() > 1e-4
    for wrong, told in [
        ({7: 1.0}, "class_weight has 7"),
        ({0: -1.0}, "class_weight of 0 is -1.0"),
        ({0: 0.0, 1: 0}, "together are zero everywhere"),
        ("even", "class_weight is 'even'"),
    ]:
        with pytest.raises(ValueError, match=told):
            RNNClassifier(class_weight=wrong, **options).fit(x, labels)


def test_the_mean_loss_is_that_of_all_data():
    """Whatever the batches are, an epoch's loss is the weighed mean."""
    x, y = RAGGED * 3, np.tile(LABELS, 3)
    weight = np.arange(18.0)
    found = [
        RNNClassifier(
            epochs=1, batch_size=size, optimizer="sgd", learning_rate=1e-9, standardize=False,
            class_weight={0: 5.0, 1: 2.0}, cell="rnn", hidden_sizes=3, random_state=0,
        ).fit(x, y, sample_weight=weight).history_.loss[0]
        for size in (1, 4, 18)
    ]  # fmt: skip
    np.testing.assert_allclose(found, found[0], rtol=1e-5)


def test_several_values_of_a_sequence():
    y = np.array([[one[:, 0].mean(), 100 * one[-1, 1]] for one in RAGGED])
    options = {**SMALL, "hidden_sizes": (8,), "epochs": 150, "loss": train.Huber(0.5)}
    regressor = RNNRegressor(**options).fit(RAGGED, y)
    assert regressor.predict(RAGGED).shape == (6, 2)
    assert regressor.score(RAGGED, y) > 0.9
    with pytest.raises(ValueError, match="y has 1 values, fitted were 2"):
        regressor.partial_fit(RAGGED, y[:, 0])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([*RAGGED[:5], np.zeros((4, 3))], "sequence 5 of X has 3 values a step, sequence 0 has 2"),
        ([*RAGGED[:5], np.zeros((0, 2))], "sequence 5 of X has no steps"),
        ([*RAGGED[:5], np.full((2, 2), np.nan)], "sequence 5 of X holds NaN at step 0.*padding"),
        ([*RAGGED[:5], np.full((2, 2), np.inf)], "sequence 5 of X holds infinity"),
        ([*RAGGED[:5], np.zeros(3)], "one axis and of two"),
        ([*RAGGED[:5], np.array([["a", "b"]])], "sequence 5 of X has dtype"),
        ([*RAGGED[:5], 3.0], r"sequence 5 of X has shape \(\)"),
        (RAGGED[:5], "X has 5 sequences, y has 6"),
        ([one * 1e300 for one in RAGGED], "too large to be standardised"),
        ([[10**400] * 3] * 6, "too large"),
        (np.zeros((6, 3, 0)), "X has 0 values a step"),
        (np.ma.masked_array(np.zeros((6, 3)), mask=True), "X has masked arrays"),
        ([np.ma.masked_array(np.zeros(3), mask=True)] * 6, "X has masked arrays"),
        (np.zeros((6, 3, 1), "datetime64[s]"), "wanted numbers"),
        ([], "minimum of 1 is required|at least one"),
        (np.zeros((6, 2, 2, 2)), r"X has shape \(6, 2, 2, 2\)"),
        ({"a": 1}, "X is a dict|Expected 2D|float"),
    ],
)
def test_wrong_inputs(wrong, told):
    classifier = RNNClassifier(epochs=1, **SMALL)
    before = dict(vars(classifier))
    with pytest.raises((TypeError, ValueError), match=told):
        classifier.fit(wrong, LABELS)
    assert vars(classifier) == before


def test_the_layers_of_the_network():
    classifier = RNNClassifier(
        "rnn", (4, 3), bidirectional=True, dropout=0.1, input_dropout=0.2, variational=True
    )
    classifier._generator = np.random.default_rng(0)
    network = classifier._network(2, 5)
    assert [type(one).__name__ for one in network] == [
        "Dropout", "RNN", "Dropout", "RNN", "Pool", "Dropout", "Linear",
    ]  # fmt: skip
    assert [one.variational for one in network if isinstance(one, fastrnn.Dropout)] == [
        True, True, False,
    ]  # fmt: skip
    assert network[3].output_size == 6
    assert network[-1].out_features == 5
