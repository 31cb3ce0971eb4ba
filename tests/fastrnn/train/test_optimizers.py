"""Optimisers: torch's steps, states that go on to the same bits, refusals that change nothing."""

import numpy as np
import pytest
import torch

import fastrnn
from fastrnn import train

CASES = {
    "sgd": (lambda: train.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        lambda: train.SGD(0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1),
    ),
    "nesterov": (
        lambda: train.SGD(0.1, 0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, 0.8, nesterov=True),
    ),
    "rmsprop": (
        lambda: train.RMSProp(0.01),
        lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.9),
    ),
    "adam": (lambda: train.Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adamw": (
        lambda: train.AdamW(0.01, (0.8, 0.99), 1e-6, 0.2),
        lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.99), 1e-6, 0.2),
    ),
}


def model(dtype="float64"):
    return fastrnn.Sequential(
        fastrnn.GRU(2, 3, seed=0, dtype=dtype), fastrnn.Linear(3, 1, seed=1, dtype=dtype)
    )


def gradients(of, step):
    rng = np.random.default_rng(step)
    return {
        name: rng.standard_normal(value.shape).astype(value.dtype)
        for name, value in of.parameters.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_torchs_steps(name):
    make, torchs = CASES[name]
    own, optimizer = model(), make()
    tensors = {n: torch.tensor(np.array(v)).requires_grad_() for n, v in own.parameters.items()}
    wanted = torchs(list(tensors.values()))
    for step in range(20):
        found = gradients(own, step)
        optimizer.step(own, found)
        for n, tensor in tensors.items():
            tensor.grad = torch.from_numpy(found[n])
        wanted.step()
    for n, tensor in tensors.items():
        np.testing.assert_allclose(own.parameters[n], tensor.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adamw"])
def test_a_state_goes_on_to_the_same_bits(name, tmp_path):
    make, path = CASES[name][0], tmp_path / "optimizer.safetensors"
    whole, half = model("float32"), model("float32")
    one, first, second = make(), make(), make()
    for step in range(6):
        one.step(whole, gradients(whole, step))
        if step == 3:
            first.save(path)
            second.load(path)
        (first if step < 3 else second).step(half, gradients(half, step))
    for n, value in whole.parameters.items():
        assert np.array_equal(value, half.parameters[n])
    assert second.steps == 6


def test_some_parameters_alone():
    own, optimizer = model(), train.Adam(0.1)
    before = own.state_dict()
    optimizer.step(own, {"1.bias": np.ones(1)})
    changed = [n for n, value in own.parameters.items() if not np.array_equal(value, before[n])]
    assert changed == ["1.bias"]
    assert np.count_nonzero(optimizer.state_dict()["mean.1.bias"]) == 1
    assert not optimizer.state_dict()["mean.1.weight"].any()


def test_what_is_not_finite_changes_nothing():
    own, optimizer = model(), train.Adam()
    optimizer.step(own, gradients(own, 0))
    before, state = own.state_dict(), optimizer.state_dict()
    broken = gradients(own, 1)
    broken["0.bias_hh_l0"][1] = np.inf
    with pytest.raises(ValueError, match=r"0\.bias_hh_l0 has a gradient that is not finite at ste"):
        optimizer.step(own, broken)
    for n, value in own.parameters.items():
        assert np.array_equal(value, before[n])
    for n, value in optimizer.state_dict().items():
        assert np.array_equal(value, state[n])


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: train.Adam(-1), ValueError, "rate is -1"),
        (lambda: train.Adam("fast"), TypeError, "rate is 'fast'"),
        (lambda: train.Adam(betas=(0.9, 1.0)), ValueError, "betas is"),
        (lambda: train.Adam(betas=0.9), TypeError, "betas is 0.9"),
        (lambda: train.SGD(0.1, nesterov=True), ValueError, "momentum above 0"),
        (lambda: train.SGD(0.1).step(model(), {"x": np.ones(1)}), ValueError, "'x', which is no"),
        (
            lambda: train.SGD(0.1).step(model(), {"1.bias": np.ones(2)}),
            ValueError,
            r"gradient of 1\.bias has shape \(2,\), wanted \(1,\)",
        ),
        (lambda: train.Adam().load_state_dict({"steps": 1, "x.y": 1}), ValueError, "'x.y'"),
        (lambda: train.Adam().load_state_dict({}), ValueError, "no 'steps'"),
    ],
)
def test_bad_input(call, error, told):
    with pytest.raises(error, match=told):
        call()


def test_another_model():
    optimizer, own = train.Adam(), model()
    optimizer.step(own, gradients(own, 0))
    other = fastrnn.GRU(2, 3, dtype="float64")
    with pytest.raises(ValueError, match="belongs to another model"):
        optimizer.step(other, gradients(other, 0))


def test_schedules():
    cosine = train.Cosine(1.0, 10, 0.1)
    assert [cosine.at(step) for step in (0, 5, 10, 99)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    warm = train.WarmUp(4, train.Cosine(0.8, 10))
    assert [warm.at(step) for step in (0, 3, 4, 9)] == pytest.approx([0.2, 0.8, 0.8, 0.4])
    plateau = train.Plateau(1.0, 0.5, patience=2, last=0.3)
    rates = []
    for loss in (3.0, 2.0, 2.5, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0):
        plateau.observe(loss)
        rates.append(plateau.at(0))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]
    again = train.Plateau(1.0, 0.5, patience=2, last=0.3)
    again.restore(plateau.state())
    assert again.state() == plateau.state()
    optimizer = train.SGD(warm)
    own = model()
    for _ in range(3):
        optimizer.step(own, gradients(own, 0))
    assert optimizer.rate == warm.at(3)
    with pytest.raises(ValueError, match="factor is 2"):
        train.Plateau(1.0, 2)


def test_clipping():
    given = {"a": np.full((2, 2), 3.0, np.float32), "b": np.full(7, -4.0, np.float32)}
    norm = np.sqrt(4 * 9 + 7 * 16)
    clipped, before = train.clip_by_norm(given, 1.0)
    assert before == pytest.approx(norm)
    np.testing.assert_allclose(clipped["b"], -4 / norm, rtol=1e-6)
    assert clipped["a"].dtype == np.float32
    assert train.clip_by_norm(given, 100.0)[0]["a"] is given["a"]
    assert train.clip_by_value(given, 3.5)["b"].min() == -3.5
    large = {"a": np.full(3, 1e30, np.float32)}
    assert train.clip_by_norm(large, 1.0)[1] == pytest.approx(np.sqrt(3) * 1e30)
    broken = {"a": np.array([np.nan, 1.0])}
    assert np.isnan(train.clip_by_norm(broken, 1.0)[1])
    with pytest.raises(ValueError, match="most is 0"):
        train.clip_by_norm(given, 0)
    with pytest.raises(TypeError, match="most is None"):
        train.clip_by_value(given, None)
