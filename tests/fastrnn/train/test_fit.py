"""Trainings: that they learn, count what counts, go on to the same bits, and end as they should."""

import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import train


def sequences(many=60, ragged=True, dtype=np.float32):
    """Sequences, and whether the sum of their first values is above 0."""
    rng = np.random.default_rng(1)
    x = [
        rng.standard_normal((rng.integers(3, 9) if ragged else 6, 2)).astype(dtype)
        for _ in range(many)
    ]
    return x, np.array([int(one[:, 0].sum() > 0) for one in x])


def classifier(how="last", dropout=0.0, **options):
    gru = fastrnn.GRU(2, 12, seed=0, **options)
    return fastrnn.Sequential(
        gru,
        fastrnn.Pool(how),
        fastrnn.Dropout(dropout, seed=2),
        fastrnn.Linear(gru.output_size, 2, seed=1),
    )


def accuracy(model, data):
    return np.mean([model(one[:, None])[0][0].argmax() == c for one, c in zip(*data, strict=True)])


@pytest.mark.parametrize("how", ["last", "mean", "max"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}])
def test_it_learns(how, options):
    data = sequences(200)
    model = classifier(how, **options)
    history = train.fit(
        model, data, train.CrossEntropy(), train.Adam(1e-2), 15, clip=1.0, rng=0, progress=False
    )
    if not options:
        assert accuracy(model, data) > 0.9
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert history.best == int(np.argmin(history.loss))
    assert history.epochs == 15


def test_padding_does_not_count():
    """An epoch of one batch of ragged sequences: the mean of what each gives by itself."""
    x, _ = sequences(5)
    targets = [one[:, :1] * 2 for one in x]
    model = fastrnn.Sequential(fastrnn.LSTM(2, 4, seed=0), fastrnn.Linear(4, 1, seed=1))
    before = model.state_dict()
    errors = [
        ((model(one[:, None])[0][:, 0] - t) ** 2).sum() for one, t in zip(x, targets, strict=True)
    ]
    data = train.fit(model, (x, targets), train.MeanSquare(), train.SGD(1e-9), 1, batch_size=8)
    assert data.loss[0] == pytest.approx(sum(errors) / sum(map(len, x)), rel=1e-5)
    # Weights: a sequence that counts for nothing changes nothing.
    model.load_state_dict(before)
    weight = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    found = train.fit(
        model, (x, targets, weight), train.MeanSquare(), train.SGD(1e-9), 1, batch_size=8
    )
    steps = sum(w * len(one) for w, one in zip(weight, x, strict=True))
    assert found.loss[0] == pytest.approx(np.dot(weight, errors) / steps, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"tbptt": (2, 4)}])
def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path, options):
    x, classes = sequences(40)
    data, path = (x, [np.full(len(one), c) for one, c in zip(x, classes, strict=True)]), None

    def make():
        return fastrnn.Sequential(
            fastrnn.LSTM(2, 5, 2, dropout=0.3, seed=0), fastrnn.Linear(5, 2, seed=1)
        )

    def fit(model, epochs, path):
        return train.fit(
            model, data, train.CrossEntropy(), train.Adam(train.Plateau(1e-2, patience=1)), epochs,
            validation=data, rng=3, batch_size=16, checkpoint=path, **options,
        )  # fmt: skip

    whole, parts = make(), make()
    history = fit(whole, 4, path)
    path = tmp_path / "run.safetensors"
    fit(parts, 2, path)
    parts = make()
    again = fit(parts, 4, path)
    assert again.loss == history.loss
    assert again.validation == history.validation
    for name, value in whole.parameters.items():
        assert np.array_equal(value, parts.parameters[name])
    with pytest.raises(ValueError, match=r"run\.safetensors.*another model"):
        fit(classifier(), 4, path) if not options else train.fit(
            fastrnn.LSTM(2, 2), data, train.CrossEntropy(), epochs=1, checkpoint=path
        )


def test_early_stopping_keeps_the_best():
    data, others = sequences(30), sequences(30)
    wrong = others[0], 1 - others[1]
    model = classifier()
    history = train.fit(
        model, data, train.CrossEntropy(), train.Adam(3e-2), 50,
        validation=wrong, early_stopping=3, rng=0,
    )  # fmt: skip
    assert history.epochs < 50
    assert history.epochs == history.best + 4
    assert "no better epoch among the last 3" in history.stopped
    logits = np.concatenate([model(one[:, None])[0] for one in wrong[0]])
    found, _ = train.CrossEntropy()(logits, wrong[1])
    assert found == pytest.approx(min(history.validation), rel=1e-4)


def test_states_are_carried_on():
    """The second half of a sequence, as the batch behind the first: as one whole sequence."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8, 2)).astype(np.float32)
    target = rng.standard_normal((3, 8, 1)).astype(np.float32)

    def loss(parts, stateful, batch_size=3):
        model = fastrnn.Sequential(fastrnn.LSTM(2, 4, seed=0), fastrnn.Linear(4, 1, seed=1))
        data = (
            np.concatenate([x[:, p] for p in parts]),
            np.concatenate([target[:, p] for p in parts]),
        )
        return train.fit(
            model, data, train.MeanSquare(), train.SGD(1e-9), 1, batch_size=batch_size,
            stateful=stateful, rng=0,
        ).loss[0]  # fmt: skip

    halves = slice(0, 4), slice(4, 8)
    whole = loss([slice(0, 8)], False)
    assert loss(halves, True) == pytest.approx(whole, rel=1e-6)
    assert loss(halves, False) != pytest.approx(whole, rel=1e-3)
    with pytest.raises(ValueError, match="batches of one size"):
        loss(halves, True, batch_size=4)


def test_what_diverges_gets_its_best_parameters_back():
    x, _ = sequences(20)
    targets = [one[:, :1] for one in x]
    model = fastrnn.Sequential(fastrnn.RNN(2, 4, seed=0), fastrnn.Linear(4, 1, seed=1))
    with pytest.raises(train.DivergenceError, match=r"epoch \d+, step \d+.*clip=1\.0") as error:
        train.fit(model, (x, targets), train.MeanSquare(), train.SGD(1e6), 200, rng=0)
    assert all(np.isfinite(value).all() for value in model.parameters.values())
    assert isinstance(pickle.loads(pickle.dumps(error.value)), train.DivergenceError)
    assert error.value.history.epochs == error.value.epoch


def test_tokens():
    rng = np.random.default_rng(0)
    tokens = [rng.integers(0, 5, rng.integers(4, 12)) for _ in range(80)]
    model = fastrnn.Sequential(
        fastrnn.Embedding(5, 6, seed=0), fastrnn.GRU(6, 16, seed=0), fastrnn.Linear(16, 5, seed=0)
    )
    before = [np.roll(one, 1) for one in tokens]
    for one in before:
        one[0] = 0
    history = train.fit(model, (tokens, before), train.CrossEntropy(), train.AdamW(2e-2), 20, rng=0)
    assert history.loss[-1] < 0.2


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"data": np.ones(3)}, TypeError, "data is ndarray, wanted"),
        ({"data": ([], [])}, ValueError, "data has no sequences"),
        ({"data": ([np.ones((2, 2))], [0])}, TypeError, r"\.astype\(np\.float32\)"),
        ({"data": ([np.ones((2, 3), "f")], [0])}, ValueError, "takes 2"),
        ({"data": ([np.ones((2, 2), "f")], [0, 1])}, ValueError, "1 sequences and 2 targets"),
        ({"data": ([np.ones((0, 2), "f")], [0])}, ValueError, "sequence 0 of data has no steps"),
        ({"data": ([np.full((2, 2), np.nan, "f")], [0])}, ValueError, "holds NaN"),
        ({"loss": train.CrossEntropy}, TypeError, "loss is"),
        ({"optimizer": "adam"}, TypeError, "optimizer is 'adam'"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"tbptt": (2, 4)}, ValueError, "the model has a Pool"),
        ({"clip": -1}, ValueError, "clip is -1"),
        ({"early_stopping": 0}, ValueError, "early_stopping is 0"),
        ({"model": fastrnn.Linear(2, 2)}, TypeError, "model is a Linear"),
        ({"model": fastrnn.GRU(2, 2)}, ValueError, "one for each step"),
    ],
)
def test_bad_input(change, error, told):
    given = {"model": classifier(), "data": sequences(5), "loss": train.CrossEntropy()}
    with pytest.raises(error, match=told):
        train.fit(**(given | change))
