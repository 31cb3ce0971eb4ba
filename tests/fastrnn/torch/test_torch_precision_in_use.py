"""Lower precision in use: packed weights, a scaler, transforms, calls that are prepared."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call, grad, vmap

import fastrnn.torch
from fastrnn.torch import packed
from graphs_torch import flat
from own_torch import torch_itself
from precision_torch import LOW, WAYS, B, H, I, T, computed, inputs, made

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections is not supported with oneDNN"  # torch says so once
)


def value(parameter):
    parameter.data.view(-1)[-1] += 1


def bits(parameter):
    parameter.detach().view(torch.int16).numpy().reshape(-1)[-1] ^= 1 << 12


@pytest.mark.parametrize("write", [value, bits])
@pytest.mark.parametrize("low", LOW, ids=str)
def test_every_write_is_seen(low, write):
    """An odd number of values ends within a word of those that are compared."""
    cell, x = fastrnn.torch.RNNCell(1, 1).to(low), torch.ones(1, 1, dtype=low)
    for parameter in cell.parameters():
        with torch.no_grad():
            before = cell(x)
            write(parameter)
            x += 1
            after = cell(x, before)
            assert torch.equal(after, copy.deepcopy(cell)(x, before))


@pytest.fixture
def packings(monkeypatch):
    """One entry for each time that weights are packed."""
    counted, copies = [], packed.Copies
    monkeypatch.setattr(packed, "Copies", lambda *given: counted.append(1) or copies(*given))
    return counted


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pairs", [False, True])
def test_weights_are_packed_once(way, pairs, packings, monkeypatch):
    """For products of bfloat16 apart: an evaluation between steps packs no more than these."""
    monkeypatch.setattr(packed, "current", lambda: SimpleNamespace(pairs=pairs))
    ours, _, _ = made("LSTM", way, torch.bfloat16)
    x, states = inputs(ours, "batched", torch.bfloat16, torch.bfloat16)
    autocast = torch.bfloat16 if way == "autocast" else None
    for _ in range(3):
        for training in (True, False):
            computed(ours, x, states, "batched", autocast, training)
    assert len(packings) == 1 + pairs


def test_steps_of_a_scaler_are_those_without_it():
    """Scaled by a power of two, but for what would be no number: then there is no step."""
    x, found = torch.randn(T, B, I), []
    first = fastrnn.torch.LSTM(I, H)
    for enabled in (False, True):
        layer = copy.deepcopy(first)
        optimiser = torch.optim.SGD(layer.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=enabled)
        with torch.autocast("cpu", torch.float16):
            loss = layer(x)[0].float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        found.append([*layer.parameters()])
        assert not torch.equal(layer.weight_hh_l0, first.weight_hh_l0)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    before = [one.clone() for one in layer.parameters()]
    optimiser.zero_grad()
    with torch.autocast("cpu", torch.float16):
        loss = (layer(x)[0] * float("inf")).sum()
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    assert all(map(torch.equal, before, layer.parameters()))
    assert scaler.get_scale() == 128.0


def test_accelerated_models_train_under_autocast():
    model = torch.nn.Sequential(torch.nn.Linear(I, I), torch.nn.GRU(I, H))
    fastrnn.torch.accelerate(model)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = model(torch.randn(T, B, I))
    y.sum().backward()
    assert y.dtype is torch.bfloat16  # as the states are zeros of the type of x
    assert all(one.grad.dtype is torch.float32 for one in model.parameters())
    assert all(one.grad.abs().sum() > 0 for one in model.parameters())


@pytest.mark.parametrize("name", ["LSTM both ways", "GRUCell"])
def test_transforms(name):
    ours, _, _ = made(name, "module", torch.bfloat16)
    x, _ = inputs(ours, "batched", torch.bfloat16, None)
    xs = torch.stack([x, -x])
    mapped = vmap(lambda one: flat(ours(one))[0])(xs)
    assert mapped.dtype is torch.bfloat16
    assert torch.equal(mapped, torch.stack([flat(ours(one))[0] for one in xs]))

    def loss(parameters):
        return flat(functional_call(ours, parameters, (x,)))[0].float().square().sum()

    found = grad(loss)({k: v.detach() for k, v in ours.named_parameters()})
    loss(dict(ours.named_parameters())).backward()
    for key, parameter in ours.named_parameters():
        assert found[key].dtype is torch.bfloat16
        assert torch.equal(found[key], parameter.grad)


@pytest.mark.filterwarnings("ignore:torch's own kernels run")
@pytest.mark.parametrize("way", WAYS)
def test_second_derivatives(way):
    ours, _, wide = made("LSTM", way, torch.bfloat16)
    x, _ = inputs(ours, "batched", torch.bfloat16, None)
    found = []
    for module, dtype in ((ours, torch.bfloat16), (wide, torch.float32)):
        leaf = x.detach().clone().to(dtype).requires_grad_()
        autocast = way == "autocast" and dtype is torch.bfloat16
        with torch_itself(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = module(leaf)[0]
            (d,) = torch.autograd.grad(y.float().square().sum(), leaf, create_graph=True)
            d.float().square().sum().backward()
        found.append([leaf.grad, *(one.grad for one in module.parameters())])
        of = [leaf, *module.parameters()]
        assert [one.dtype for one in found[-1]] == [one.dtype for one in of]
    for one, other in zip(*found, strict=True):
        # Two roundings to bfloat16's 8 bits on the way, 2e-3 each, and sums of them.
        torch.testing.assert_close(one.float(), other, rtol=0, atol=0.02 * other.abs().max().item())


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell", "LSTM", "LSTM-projected"])
def test_small_calls_are_prepared(name, way, pairs, monkeypatch):
    """And give what they gave before; a write is seen, and another type refused."""
    monkeypatch.setattr(packed, "current", lambda: SimpleNamespace(pairs=pairs))
    ours, _, _ = made(name, way, torch.bfloat16)
    x, states = inputs(ours, "batched", torch.bfloat16, torch.bfloat16)
    hx = tuple(states) if len(states) > 1 else states[0]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        for given in ((x,), (x, hx)):
            found = [flat(ours(*given)) for _ in range(4)]
            for again in found[1:]:
                assert [one.dtype for one in again] == [one.dtype for one in found[0]]
                assert all(map(torch.equal, again, found[0]))
        assert all(packed.packed_of(ours).small.values())
        next(ours.parameters()).data.mul_(2)
        changed = flat(ours(x, hx))
        assert not torch.equal(changed[0], found[0][0])
        assert all(map(torch.equal, changed, flat(copy.deepcopy(ours)(x, hx))))
    if way == "module":
        with torch.no_grad(), torch_itself(), pytest.raises((ValueError, RuntimeError)):
            ours(x.float())
