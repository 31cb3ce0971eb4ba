"""Losses: torch's values, and gradients as differences have them."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastrnn import train

RNG = np.random.default_rng(0)
Y = RNG.standard_normal((4, 3, 5))
CLASSES = RNG.integers(0, 5, (4, 3))
SHARES = RNG.random((4, 3, 5))


def tensor(array):
    return torch.from_numpy(np.array(array))


CASES = {
    "square": (train.MeanSquare(), Y[::-1], lambda y, t: functional.mse_loss(y, t)),
    "huber": (train.Huber(0.7), Y[::-1], lambda y, t: functional.huber_loss(y, t, delta=0.7)),
    "binary": (
        train.BinaryCrossEntropy(),
        SHARES,
        lambda y, t: functional.binary_cross_entropy_with_logits(y, t),
    ),
    "classes": (
        train.CrossEntropy(),
        CLASSES,
        lambda y, t: functional.cross_entropy(y.flatten(0, 1), t.flatten()),
    ),
    "smoothed": (
        train.CrossEntropy(smoothing=0.2),
        CLASSES,
        lambda y, t: functional.cross_entropy(y.flatten(0, 1), t.flatten(), label_smoothing=0.2),
    ),
    "probabilities": (
        train.CrossEntropy(),
        SHARES / SHARES.sum(-1, keepdims=True),
        lambda y, t: functional.cross_entropy(y.flatten(0, 1), t.flatten(0, 1)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_torchs_values_and_gradients(name):
    loss, target, torchs = CASES[name]
    value, dy = loss(Y, target)
    y = tensor(Y).requires_grad_()
    wanted = torchs(y, tensor(target))
    wanted.backward()
    assert value == pytest.approx(wanted.item(), rel=1e-12)
    np.testing.assert_allclose(dy, y.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", [*CASES, "pinball"])
def test_weights_and_masks_by_differences(name):
    loss, target = train.Pinball((0.1, 0.3, 0.5, 0.7, 0.9)), Y[..., 0] + 0.01
    if name != "pinball":
        loss, target = CASES[name][:2]
    weight, mask = np.array([0.0, 1.0, 3.0]), np.arange(4)[:, None] < [4, 2, 3]
    _, dy = loss(Y, target, weight=weight, mask=mask)
    assert not dy[~mask].any()
    changed = RNG.standard_normal(Y.shape)
    step = 1e-6
    above = loss(Y + step * changed, target, weight=weight, mask=mask)[0]
    below = loss(Y - step * changed, target, weight=weight, mask=mask)[0]
    assert (dy * changed).sum() == pytest.approx((above - below) / (2 * step), rel=1e-6)
    # Two steps that count alone make their own mean, weighed.
    each = [loss(Y[:1, b : b + 1], target[:1, b : b + 1])[0] for b in (1, 2)]
    alone = loss(Y[:1], target[:1], weight=weight)[0]
    assert alone == pytest.approx((each[0] + 3 * each[1]) / 4, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in CASES if name != "classes"])
def test_what_is_masked_may_hold_anything(name):
    loss, target = CASES[name][:2]
    mask = np.arange(4)[:, None] < [4, 2, 0]
    value, dy = loss(Y, target, mask=mask)
    y, t = Y.copy(), np.array(target)
    y[~mask] = np.nan
    if t.dtype.kind == "f":
        t[~mask] = np.nan
    else:
        t[~mask] = -1
    again, dy_again = loss(y, t, mask=mask)
    assert again == value
    assert np.array_equal(dy_again, dy)
    assert loss(Y, target, mask=np.zeros((4, 3), bool))[0] == 0


def test_large_logits_stay_finite():
    y = np.array([[1e4, -1e4]], np.float32)
    value, dy = train.BinaryCrossEntropy()(y, np.array([[0.0, 1.0]]))
    assert value == pytest.approx(1e4)
    assert np.isfinite(dy).all()
    value, dy = train.CrossEntropy()(y, np.array([1]))
    assert value == pytest.approx(2e4)
    assert dy.dtype == np.float32


def test_a_quantile_is_what_the_pinball_loss_finds():
    values = RNG.standard_normal(4001)
    q = np.zeros((1, 3))
    for step in range(4000):
        _, dq = train.Pinball((0.1, 0.5, 0.9))(np.repeat(q, len(values), 0), values)
        q -= 3 / (1 + step / 50) * dq.sum(0)
    np.testing.assert_allclose(q[0], np.quantile(values, [0.1, 0.5, 0.9]), atol=0.02)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: train.MeanSquare()(Y, Y[:2]), ValueError, r"target has shape \(2, 3, 5\)"),
        (lambda: train.MeanSquare()(CLASSES, CLASSES), TypeError, "y has dtype int64"),
        (lambda: train.MeanSquare()(Y, Y, weight=[1.0, 2.0]), ValueError, "weight has shape"),
        (lambda: train.MeanSquare()(Y, Y, weight=-np.ones(3)), ValueError, "weight holds"),
        (lambda: train.MeanSquare()(Y, Y, mask=np.ones((4, 3))), TypeError, "mask has dtype"),
        (lambda: train.CrossEntropy()(Y, CLASSES + 3), ValueError, "target holds class 5"),
        (lambda: train.CrossEntropy()(Y, Y[0]), ValueError, "numbers of classes"),
        (lambda: train.CrossEntropy(2), ValueError, "smoothing is 2"),
        (lambda: train.BinaryCrossEntropy()(Y, Y * 9), ValueError, "outside of 0 to 1"),
        (lambda: train.Pinball((0.5, 1.0)), ValueError, "quantiles is"),
        (lambda: train.Pinball((0.5,))(Y, Y[..., 0]), ValueError, "one for each of 1 quantiles"),
        (lambda: train.Huber(-1), ValueError, "delta is -1"),
    ],
)
def test_bad_input(call, error, told):
    with pytest.raises(error, match=told):
        call()
