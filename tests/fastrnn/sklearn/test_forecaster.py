"""Forecasts: that they are of the right steps, learn, and are those of plain steps."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("sklearn") is None:
    pytest.skip("needs scikit-learn", allow_module_level=True)

from fastrnn import train
from fastrnn.sklearn import RNNForecaster

SMALL = {"cell": "rnn", "hidden_sizes": (12,), "learning_rate": 0.01, "random_state": 0}


def waves(*lengths, seed=0):
    """Waves of one period, each begun somewhere."""
    rng = np.random.default_rng(seed)
    return [np.sin((np.arange(n) + rng.uniform(0, 20)) / 3) * 5 + 100 for n in lengths]


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_it_learns(strategy):
    series = waves(60, 45, 80, 60)
    forecaster = RNNForecaster(6, strategy=strategy, window=15, epochs=60, **SMALL).fit(series)
    new = waves(50, 53, seed=9)
    found = forecaster.predict([one[:-6] for one in new])
    assert found.shape == (2, 6)
    errors = [a - b[-6:] for a, b in zip(found, new, strict=True)]
    assert np.abs(errors).max() < 1.5  # of waves between 95 and 105
    assert forecaster.score(new) > 0.95
    # A batch of series is each by itself.
    np.testing.assert_allclose(forecaster.predict([new[1][:-6]])[0], found[1], rtol=1e-5)


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_exogenous_inputs_are_of_the_steps_that_are_forecast(strategy):
    """A series that is nothing but what is known ahead of each of its steps."""
    rng = np.random.default_rng(0)
    known = [rng.standard_normal((n, 2)) for n in (40, 30, 50)]
    series = [3 * one[:, 0] - one[:, 1] for one in known]
    forecaster = RNNForecaster(3, strategy=strategy, epochs=120, **SMALL)
    forecaster.fit(series, exogenous=known)
    assert forecaster.score(series, exogenous=known) > 0.95
    found = forecaster.predict([one[:-3] for one in series], exogenous=known)
    wanted = np.stack([one[-3:] for one in series])
    assert np.corrcoef(found.reshape(-1), wanted.reshape(-1))[0, 1] > 0.97
    with pytest.raises(
        ValueError, match=r"sequence 0 of exogenous has shape \(40, 2\), wanted \(43"
    ):
        forecaster.predict(series, exogenous=known)
    with pytest.raises(ValueError, match="exogenous is None, fitted was 2 values a step"):
        forecaster.predict(series)
    before = dict(vars(forecaster))
    known[1][3] = np.nan
    with pytest.raises(ValueError, match="sequence 1 of exogenous holds NaN at step 3"):
        forecaster.fit(series, exogenous=known)
    assert vars(forecaster) == before


def test_a_recursive_forecast_is_that_of_single_steps():
    rng = np.random.default_rng(0)
    series = [rng.standard_normal((n, 2)).cumsum(0) for n in (12, 9)]
    known = [rng.standard_normal((n + 4, 1)) for n in (12, 9)]
    forecaster = RNNForecaster(4, strategy="recursive", epochs=2, **SMALL)
    forecaster.fit(series, exogenous=[one[:-4] for one in known])
    found = forecaster.predict(series, exogenous=known)
    assert found.shape == (2, 4, 2)
    model, scaling, of_known = (
        forecaster.model_, forecaster.input_scaling_, forecaster.exogenous_scaling_,
    )  # fmt: skip
    for k, (x, e) in enumerate(zip(series, known, strict=True)):
        x, e = (x - scaling.mean) / scaling.scale, (e - of_known.mean) / of_known.scale
        for j in range(4):  # from the beginning each time
            y, _ = model(np.c_[x, e[1 : len(x) + 1]].astype(np.float32)[:, None])
            x = np.r_[x, y[-1]]
            np.testing.assert_allclose(
                x[-1] * scaling.scale + scaling.mean, found[k, j], rtol=1e-4, atol=1e-4
            )


def test_pieces_hold_all_steps():
    """What is trained on, told by a loss of steps that grow by one."""
    forecaster = RNNForecaster(2, window=4, epochs=1, standardize=False, **SMALL)
    forecaster.fit([np.arange(11.0)])
    x, wanted, weight = forecaster._pieces([(np.arange(11.0)[:, None], np.zeros((11, 0)))], None)
    assert weight is None
    assert [one[:, 0].tolist() for one in x] == [[0, 1, 2, 3], [4, 5, 6, 7], [5, 6, 7, 8]]
    for one, ahead in zip(x, wanted, strict=True):
        assert np.array_equal(ahead, one + np.array([1, 2]))


def test_early_stopping_truncation_and_more_data():
    series = waves(60, 70)
    forecaster = RNNForecaster(
        2, tbptt=(10, 20), early_stopping=2, validation_fraction=0.3, epochs=40,
        optimizer=train.RMSProp(0.02), **{**SMALL, "learning_rate": 1},
    ).fit(series)  # fmt: skip
    assert len(forecaster.history_.validation) == forecaster.history_.epochs
    epochs = forecaster.history_.epochs
    forecaster.partial_fit(waves(30), sample_weight=[2.0])
    assert forecaster.history_.epochs == epochs + 1
    for wrong, told in [
        ([waves(2)[0]], "sequence 0 of X has 2 steps, wanted at least 3"),
        (waves(30)[0], "Reshape your data"),
        ([np.zeros((9, 2))], "X has 2 values a step, RNNForecaster was fitted on 1"),
    ]:
        with pytest.raises(ValueError, match=told):
            forecaster.partial_fit(wrong)
    with pytest.raises(ValueError, match="early_stopping holds back at least 3 steps"):
        forecaster.fit(waves(5))
    with pytest.raises(ValueError, match="strategy is 'both', wanted one of"):
        RNNForecaster(strategy="both").fit(series)
    assert RNNForecaster(strategy="both").get_params()["horizon"] == 1


def test_frames_of_series():
    pandas = pytest.importorskip("pandas")
    series = waves(20, 30)
    known = [np.arange(n + 3.0)[:, None] % 7 for n in (20, 30)]
    frame = pandas.DataFrame(
        {"sensor": np.repeat(["a", "b"], (20, 30)), "heat": np.concatenate(series)}
    )
    days = pandas.DataFrame(  # in another order
        {"day": np.concatenate(known[::-1])[:, 0], "sensor": np.repeat(["b", "a"], (33, 23))}
    )
    of_steps = days.groupby("sensor", sort=False).head(30).drop(index=[*range(53, 56)])
    forecaster = RNNForecaster(3, group="sensor", epochs=2, **SMALL)
    forecaster.fit(frame, exogenous=of_steps)
    plain = RNNForecaster(3, epochs=2, **SMALL).fit(series, exogenous=[one[:-3] for one in known])
    assert list(forecaster.feature_names_in_) == ["heat"]
    found = forecaster.predict(frame, exogenous=days)
    assert np.array_equal(found[..., 0], plain.predict(series, exogenous=known))
    assert forecaster.score(frame, exogenous=of_steps) == plain.score(
        series, exogenous=[one[:-3] for one in known]
    )
    for wrong, told in [
        (days[:33], "exogenous has no rows of group 'a'"),
        (days.replace("a", "c"), "exogenous has no rows of group 'a'"),
        (days.drop(columns="sensor"), "exogenous has no column 'sensor'"),
        (days[:0], "exogenous has no rows"),
    ]:
        with pytest.raises(ValueError, match=told):
            forecaster.predict(frame, exogenous=wrong)
    with pytest.raises(ValueError, match="X has no rows of group 'b'"):
        forecaster.predict(frame[:20], exogenous=days)
