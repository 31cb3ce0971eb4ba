"""Embedding, Dropout and Pool: values, gradients, lengths, files, streams, refusals."""

import numpy as np
import pytest
import torch

import fastrnn
from fastrnn.models.part import Ragged

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3, 4))
LENGTHS = np.array([5, 0, 2])


def pooled(how, x, lengths):
    found = []
    for b, length in enumerate(lengths):
        steps = x[:length, b]
        if not length:
            found.append(np.zeros(x.shape[-1]))
        elif how == "last":
            found.append(steps[-1])
        else:
            found.append(steps.mean(0) if how == "mean" else steps.max(0))
    return np.stack(found)


@pytest.mark.parametrize("how", ["last", "mean", "max"])
@pytest.mark.parametrize("axis", [0, 1])
def test_pools(how, axis):
    pool = fastrnn.Pool(how, dtype="float64")
    x = X.copy()
    x[np.arange(5)[:, None] >= LENGTHS] = np.nan  # padding is not read
    given = x.swapaxes(0, 1) if axis else x
    y, tape = pool._forward(given, Ragged(axis, LENGTHS), True, None)
    np.testing.assert_allclose(y, pooled(how, x, LENGTHS), rtol=1e-12)
    dy = RNG.standard_normal(y.shape)
    dx = pool._backward(tape, dy).x
    dx = dx.swapaxes(0, 1) if axis else dx
    changed, step = RNG.standard_normal(X.shape), 1e-6
    above, below = (pooled(how, X + s * step * changed, LENGTHS) for s in (1, -1))
    assert (dx * changed).sum() == pytest.approx((dy * (above - below)).sum() / 2 / step, rel=1e-6)
    whole = pool._forward(X[:, 0], Ragged(0, None), True, None)[0]
    np.testing.assert_allclose(whole, pooled(how, X, [5, 5, 5])[0])


def test_the_last_of_both_directions():
    layer = fastrnn.GRU(4, 3, bidirectional=True, dtype="float64", seed=0)
    model = fastrnn.Sequential(layer, fastrnn.Pool("last", dtype="float64"))
    y, (h_n,) = model(X, lengths=LENGTHS)
    _, wanted = layer(X, lengths=LENGTHS)
    found = np.concatenate([h_n[0], h_n[1]], 1)
    assert np.array_equal(h_n, wanted)
    assert np.array_equal(y[[0, 2]], found[[0, 2]])
    assert not y[1].any()


def test_embedding_is_torchs():
    tokens = RNG.integers(0, 6, (7, 4))
    own = fastrnn.Embedding(6, 3, padding_idx=2, dtype="float64", seed=0)
    assert not own.parameters["weight"][2].any()
    twin = torch.nn.Embedding(6, 3, padding_idx=2, dtype=torch.float64)
    twin.weight.data = torch.tensor(np.array(own.parameters["weight"]))
    y, tape = own._forward(tokens, Ragged(0, None), True, None)
    dy = RNG.standard_normal(y.shape)
    wanted = twin(torch.from_numpy(tokens))
    wanted.backward(torch.from_numpy(dy))
    assert np.array_equal(y, wanted.detach().numpy())
    found = own._backward(tape, dy)
    assert found.x is None
    np.testing.assert_allclose(found.parameters["weight"], twin.weight.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("variational", [False, True])
def test_dropout(variational):
    x = np.ones((200, 30, 8), np.float32)
    module = fastrnn.Dropout(0.25, variational, seed=0)
    y, tape = module._forward(x, Ragged(0, None), True, None)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.06 if variational else 0.01)
    assert variational == bool((y == y[:1]).all())
    assert np.array_equal(module._backward(tape, x).x, y)
    assert np.array_equal(module(x), x)
    again = fastrnn.Dropout(0.25, variational, seed=0)
    assert np.array_equal(again._forward(x, Ragged(0, None), True, None)[0], y)
    assert not fastrnn.Dropout(1.0)._forward(x, Ragged(0, None), True, None)[0].any()
    assert np.array_equal(module._forward(x, Ragged(0, None), False, None)[0], x)


def test_variational_dropout_behind_a_pool_is_each_sequences_own():
    dropout = fastrnn.Dropout(0.5, variational=True, seed=0)
    own = fastrnn.Sequential(fastrnn.GRU(2, 64, seed=0), fastrnn.Pool(), dropout)
    y = own.forward(np.ones((4, 3, 2), np.float32))[0]
    assert len({tuple(row) for row in y == 0}) == 3


def model(dtype="float64", batch_first=False):
    options = {"dtype": dtype, "batch_first": batch_first}
    return fastrnn.Sequential(
        fastrnn.Embedding(6, 4, dtype=dtype, seed=0),
        fastrnn.LSTM(4, 3, bidirectional=True, seed=0, **options),
        fastrnn.Dropout(0.3, dtype=dtype, seed=0),
        fastrnn.Pool("mean", dtype=dtype),
        fastrnn.Linear(6, 2, dtype=dtype, seed=0),
    )


@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_of_a_whole_model(batch_first):
    own, tokens = model(batch_first=batch_first), RNG.integers(0, 6, (5, 3))
    tokens = tokens.T.copy() if batch_first else tokens

    def run():
        return own.forward(tokens, lengths=LENGTHS, rng=np.random.default_rng(1))

    y, _, tape = run()
    dy = RNG.standard_normal(y.shape)
    found = own.backward(tape, dy).parameters
    values = own.state_dict()
    for name, value in values.items():
        changed, step = RNG.standard_normal(value.shape), 1e-6
        sides = []
        for sign in (1, -1):
            own.update({name: value + sign * step * changed})
            sides.append((run()[0] * dy).sum())
        own.update({name: value})
        wanted = (sides[0] - sides[1]) / 2 / step
        assert (found[name] * changed).sum() == pytest.approx(wanted, rel=1e-5, abs=1e-8), name


def test_files(tmp_path):
    own, tokens = model("float32"), RNG.integers(0, 6, (5, 3))
    own.save(tmp_path / "model.safetensors")
    again = fastrnn.load(tmp_path / "model.safetensors")
    assert np.array_equal(again(tokens)[0], own(tokens)[0])
    assert repr(again) == repr(own)
    with pytest.raises(ValueError, match="fastrnn's own files alone"):
        own.save(tmp_path / "model.onnx")


def test_streams():
    gru, linear = fastrnn.GRU(4, 5, seed=0), fastrnn.Linear(5, 2, seed=0)
    own = fastrnn.Sequential(gru, fastrnn.Dropout(0.5), fastrnn.Pool(), linear)
    stream, x = own.stream(), X[:, 0].astype(np.float32)
    steps = [stream.step(one, copy=True) for one in x]
    np.testing.assert_allclose(steps[-1], own(x[:, None])[0][0], rtol=1e-5)
    assert np.array_equal(steps, fastrnn.Sequential(gru, linear).stream().block(x))
    with pytest.raises(ValueError, match=r'wanted Pool\("last"\)'):
        fastrnn.Sequential(gru, fastrnn.Pool("mean")).stream()
    with pytest.raises(ValueError, match=r"make a stream of model\[1:\]"):
        fastrnn.Sequential(fastrnn.Embedding(3, 4), gru).stream()


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: fastrnn.Embedding(5, 2)(np.array([5])), ValueError, "tokens holds 5, wanted 0 to"),
        (lambda: fastrnn.Embedding(5, 2)(np.ones(2)), TypeError, "tokens has dtype float64"),
        (lambda: fastrnn.Embedding(5, 2, 5), ValueError, "padding_idx is 5"),
        (lambda: fastrnn.Dropout(1.5), ValueError, "p is 1.5"),
        (lambda: fastrnn.Pool("sum"), ValueError, "how is 'sum'"),
        (
            lambda: fastrnn.Sequential(fastrnn.Pool(), fastrnn.GRU(2, 2)),
            ValueError,
            "behind the Pool, module 0, there is no time",
        ),
        (
            lambda: fastrnn.Sequential(fastrnn.GRU(2, 2), fastrnn.Embedding(2, 2)),
            ValueError,
            "wanted it first",
        ),
        (
            lambda: fastrnn.Sequential(fastrnn.Embedding(3, 4), fastrnn.GRU(2, 2)),
            ValueError,
            "module 1 takes 2 values, module 0 gives 4",
        ),
    ],
)
def test_bad_input(call, error, told):
    with pytest.raises(error, match=told):
        call()
