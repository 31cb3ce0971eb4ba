"""Dropout inside of torch's layers, and zoneout: what fastrnn's own layers draw, by torch's seed.

What those compute is tested against plain NumPy (`tests/fastrnn/models/test_regularised.py`).
"""

import copy

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

import fastrnn
import fastrnn.torch
from cases import assert_close
from fastrnn.models.regularised import Drawn
from own_torch import torch_itself

T, B, I, H = 5, 3, 4, 6
CASES = {
    "zoneout": ("LSTM", {
        "zoneout": (0.3, 0.4), "recurrent_dropout": 0.25, "recurrent_dropout_on": "candidate",
    }),
    "dropout": ("LSTM", {
        "recurrent_dropout": 0.3, "input_dropout": 0.4, "weight_dropout": 0.2, "proj_size": 5,
    }),
}  # fmt: skip


def drawn_of(own, seed):
    """What fastrnn's own layer draws with the key that torch's generator gives of a seed."""
    torch.manual_seed(seed)
    return Drawn(own._rates, int(torch.randint(2**63 - 1, (1,))))


def pair(case, dtype=torch.float64, **more):
    """A module, and fastrnn's own layer with its parameters."""
    kind, options = CASES[case]
    options = {"num_layers": 2, "bidirectional": True} | options | more
    module = getattr(fastrnn.torch, kind)(I, H, **options).to(dtype)
    own = getattr(fastrnn, kind)(I, H, **options, dtype=str(dtype).removeprefix("torch."))
    own.load_state_dict({n: p.detach().numpy() for n, p in module.named_parameters()})
    return module, own


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_values_and_gradients(case, batch_first, monkeypatch):
    module, own = pair(case, batch_first=batch_first)
    x = torch.randn(B, T, I, dtype=torch.float64).requires_grad_()
    x = x if batch_first else x.detach().swapaxes(0, 1).contiguous().requires_grad_()
    for _ in range(2):  # what comes again is prepared
        torch.manual_seed(7)
        y, _ = module(x)
        d = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        found = torch.autograd.grad(y, [x, *module.parameters()], d)
    drawn = drawn_of(own, 7)
    monkeypatch.setattr(type(own._rates), "drawn", lambda rates, rng: drawn)
    wanted, _, tape = own.forward(x.detach().numpy())
    assert_close(y.detach().numpy(), wanted, 1e-12, "y")
    gradients = own.backward(tape, d.numpy())
    for got, of in zip(found, [gradients.x, *gradients.parameters.values()], strict=True):
        assert_close(got.numpy(), of, 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_inference_is_as_fastrnns_own(case):
    module, own = pair(case)
    module.eval()
    x = torch.randn(T, B, I, dtype=torch.float64)
    for _ in range(3):
        y, _ = module(x)
        assert_close(y.detach().numpy(), own(x.numpy())[0], 1e-12)
    again = copy.deepcopy(module)
    assert torch.equal(again(x)[0], y)
    with torch.no_grad():
        for _ in range(3):
            assert_close(module(x)[0].numpy(), own(x.numpy())[0], 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_packed_sequences(case):
    """Rows that end early, each as it is by itself: masks are of the rows as they are packed."""
    module, _ = pair(case, bidirectional=False)
    rows = [torch.randn(n, I, dtype=torch.float64) for n in (5, 2)]
    torch.manual_seed(3)
    y, _ = module(pack_sequence(rows))
    padded = torch.nn.utils.rnn.pad_sequence(rows)
    torch.manual_seed(3)
    whole, _ = module(padded)
    unpacked, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    assert_close(unpacked[:2].detach().numpy(), whole[:2].detach().numpy(), 1e-12)
    assert_close(unpacked[2:, 0].detach().numpy(), whole[2:, 0].detach().numpy(), 1e-12)
    torch.autograd.grad(y.data.sum(), list(module.parameters()))


def test_a_checkpoint_draws_the_same():
    module, _ = pair("dropout")
    x = torch.randn(T, B, I, dtype=torch.float64)
    results = []
    for run in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(5)
        results.append(torch.autograd.grad(run(x)[0].sum(), list(module.parameters())))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:torch's own kernels run")
def test_what_has_none_says_so():
    module, _ = pair("zoneout")
    x = torch.randn(T, B, I, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="torch's own kernels run"):
        module.__prepare_scriptable__()
    with torch_itself():
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="which have none"):
            module(x)
        with pytest.raises(RuntimeError, match=r"input\.size"):  # torch's, of wrong arguments
            module(x[..., :2])
    with pytest.raises(ValueError, match="the model itself has zoneout or dropout inside"):
        fastrnn.torch.restore(module)
    y, _ = module(x)
    first = torch.autograd.grad(y.square().sum(), module.weight_hh_l0, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="second derivatives"):
        first.sum().backward()
    with pytest.raises(ValueError, match="zoneout has 2 probabilities, this GRU has 1 states"):
        fastrnn.torch.GRU(I, H, zoneout=(0.1, 0.2))
    with pytest.raises(TypeError, match="zoneou"):
        fastrnn.torch.LSTM(I, H, zoneou=0.1)
    assert "zoneout=(0.3, 0.4)" in repr(module)
    assert repr(fastrnn.torch.LSTM(I, H, zoneout=0.0)) == repr(torch.nn.LSTM(I, H))


def test_all_dropped_and_none():
    """A rate of 1 leaves nothing of R; of 0, what there is without."""
    plain = fastrnn.torch.LSTM(I, H, dtype=torch.float64)
    for rate in (0.0, 1.0):
        module = fastrnn.torch.LSTM(I, H, recurrent_dropout=rate, dtype=torch.float64)
        module.load_state_dict(plain.state_dict())
        if rate == 1:
            with torch.no_grad():
                plain.weight_hh_l0.zero_()
        x = torch.randn(T, B, I, dtype=torch.float64)
        assert_close(module(x)[0].detach().numpy(), plain(x)[0].detach().numpy(), 1e-12)
        assert np.isfinite(module(x)[0].detach().numpy()).all()
