"""What modules take beside torch's arguments: checkpoints, clipping, learned initial states."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn.torch
from fastrnn.cells import PeepholeLSTM
from own_torch import torch_itself

I, H, T, B = 3, 5, 11, 4
DOUBLE = torch.float64

KINDS = {
    "LSTM": lambda **o: fastrnn.torch.LSTM(I, H, 2, bidirectional=True, dropout=0.3, **o),
    "projected": lambda **o: fastrnn.torch.LSTM(I, H, proj_size=2, batch_first=True, **o),
    "GRU": lambda **o: fastrnn.torch.GRU(I, H, bias=False, **o),
    "own": lambda **o: PeepholeLSTM.torch(I, H, bidirectional=True, **o),
}


def states_of(found):
    return [found] if isinstance(found, torch.Tensor) else list(found)


def trained(module, given, hx=None):
    """All that a step gives."""
    torch.manual_seed(1)  # dropout's
    module.zero_grad()
    y, final = module(given, hx)
    y = y if isinstance(y, torch.Tensor) else y.data
    (y.square().sum() + sum(one.sin().sum() for one in states_of(final))).backward()
    leaf = given if isinstance(given, torch.Tensor) else given.data
    found = [y, *states_of(final), leaf.grad, *(one.grad for one in module.parameters())]
    found = [one.detach().clone() for one in found if one is not None]
    leaf.grad = None
    return found


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_checkpoints_change_no_bit(name):
    module = KINDS[name](dtype=DOUBLE)
    x = torch.randn(T, B, I, dtype=DOUBLE, requires_grad=True)
    rows = pack_padded_sequence(x.detach(), [5, 11, 1, 8], enforce_sorted=False)
    rows.data.requires_grad_()
    wanted = trained(module, x), trained(module, rows)
    for checkpoint in (1, 4, 100, "auto"):
        module.checkpoint = checkpoint
        for _ in range(3):  # also where a call would be prepared
            assert_same(trained(module, x), wanted[0])
        assert_same(trained(module, rows), wanted[1])


def test_memory_of_a_tape_is_that_of_checkpoints():
    module, x = fastrnn.torch.LSTM(I, 32), torch.randn(400, B, I)
    held = {}
    for checkpoint in (None, 20):
        module.checkpoint = checkpoint
        y, _ = module(x)
        kept = [one for one in y.grad_fn.saved_tensors if one is not None]
        held[checkpoint] = sum({one.data_ptr(): one.nbytes for one in kept}.values())
    assert held[20] < held[None] / 4


@pytest.mark.parametrize("name", ["LSTM", "own"])
def test_gradients_of_everything(name):
    module = KINDS[name](dtype=DOUBLE, checkpoint=3, initial_state="learned").eval()
    for one in module.parameters():
        nn.init.normal_(one, std=0.5)
    names = [n for n, _ in module.named_parameters()]
    assert sum(n.startswith("initial_") for n in names) == 2 * len(module._suffixes)
    x = torch.randn(4, 2, I, dtype=DOUBLE, requires_grad=True)
    values = [one.detach().clone().requires_grad_() for one in module.parameters()]

    def call(x, *values):
        given = dict(zip(names, values, strict=True))
        y, final = torch.func.functional_call(module, given, (x,))
        return (y, *states_of(final))

    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


@pytest.mark.parametrize("clip", [{"clip_value": 0.02}, {"clip_norm": 0.05}])
def test_clipping_is_that_of_the_layer(clip):
    layer = fastrnn.LSTM(I, H, 2, bidirectional=True, dtype="float64", seed=0)
    module = fastrnn.torch.LSTM(I, H, 2, bidirectional=True, dtype=DOUBLE, **clip)
    module.load_state_dict({n: torch.tensor(v) for n, v in layer.state_dict().items()})
    x = torch.randn(T, B, I, dtype=DOUBLE, requires_grad=True)
    y, _, tape = layer.forward(x.detach().numpy())
    wanted = layer.backward(tape, 2 * y, **clip)
    for module.checkpoint in (None, 4):
        for _ in range(3):
            module.zero_grad()
            x.grad = None
            module(x)[0].square().sum().backward()
            np.testing.assert_array_equal(x.grad.numpy(), wanted.x)
            for name, value in module.named_parameters():
                np.testing.assert_array_equal(value.grad.numpy(), wanted.parameters[name])
    module.clip_value = module.clip_norm = None
    plain = trained(module, x)
    assert not np.allclose(plain[3].numpy(), wanted.x)


@pytest.mark.parametrize("kind", [fastrnn.torch.GRU, fastrnn.torch.LSTM, PeepholeLSTM.torch])
def test_a_learned_initial_state_is_that_of_the_layer(kind, tmp_path):
    layers = {fastrnn.torch.GRU: fastrnn.GRU, fastrnn.torch.LSTM: fastrnn.LSTM}
    make = layers.get(kind, PeepholeLSTM)
    layer = make(I, H, 2, bidirectional=True, initial_state="learned", seed=0)
    random = np.random.default_rng(0)
    layer.update({n: random.normal(0, 0.5, v.shape) for n, v in layer.parameters.items()})
    module = kind(I, H, 2, bidirectional=True, initial_state="learned")
    assert not any(v.any() for n, v in module.named_parameters() if n.startswith("initial_"))
    module.load_state_dict({n: torch.tensor(v) for n, v in layer.state_dict().items()})
    x = torch.randn(T, B, I)
    y, _ = layer(x.numpy())
    for given, wanted in ((x, y), (x[:, 0], y[:, 0])):
        with torch.no_grad():
            found, _ = module(given)
        np.testing.assert_array_equal(found.numpy(), wanted)
    rows = pack_padded_sequence(x, [5, 11, 1, 8], enforce_sorted=False)
    packed = nn.utils.rnn.pad_packed_sequence(module(rows)[0])[0].detach()
    np.testing.assert_array_equal(packed.numpy(), layer(x.numpy(), lengths=[5, 11, 1, 8])[0])
    # A state that is given goes before it.
    zeros = [torch.zeros(4, B, H) for _ in module._cell.states]
    began, _ = module(x, zeros[0] if len(zeros) == 1 else tuple(zeros))
    plain = make(I, H, 2, bidirectional=True)
    plain.update({n: v for n, v in layer.parameters.items() if n in plain.parameters})
    np.testing.assert_array_equal(began.detach().numpy(), plain(x.numpy())[0])
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(other) == repr(module)
        assert torch.equal(other(x)[0], module(x)[0])
    if make is not PeepholeLSTM:  # of which a state dict does not tell
        torch.save(module.state_dict(), tmp_path / "layer.pt")
        np.testing.assert_array_equal(fastrnn.load(tmp_path / "layer.pt")(x.numpy())[0], y)
    module.reset_parameters()
    assert not module.initial_h_l0.any()
    assert module.weight_hh_l0.any()


def test_a_learned_initial_state_learns():
    module = fastrnn.torch.GRU(I, H, batch_first=True, initial_state="learned")
    x = torch.randn(B, T, I)
    optimiser = torch.optim.SGD([module.initial_h_l0], lr=0.1)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = (module(x)[0] - 0.3).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_modules_that_were_swapped_have_options():
    model = nn.Sequential(nn.LSTM(I, H))
    fastrnn.torch.accelerate(model)
    x = torch.randn(T, B, I, requires_grad=True)
    wanted = trained(model[0], x)
    model[0].checkpoint = 3
    assert "checkpoint=3" in repr(model)
    assert_same(trained(model[0], x), wanted)
    assert fastrnn.torch.restore(model) == ("0",)


def test_compiled_models_and_transforms():
    module = fastrnn.torch.GRU(I, H, checkpoint=3, initial_state="learned", clip_norm=0.1)
    nn.init.normal_(module.initial_h_l0)
    x = torch.randn(T, B, I, requires_grad=True)
    wanted = trained(module, x)
    assert_same(trained(torch.compile(module, backend="eager"), x), wanted)
    learned = fastrnn.torch.GRU(I, H, initial_state="learned")
    learned.load_state_dict(module.state_dict())
    within = torch.compile(learned, backend="eager", fullgraph=True)  # an operator of the graph
    assert_same(trained(within, x), trained(learned, x))
    parameters = {n: v.detach() for n, v in module.named_parameters()}

    def loss(parameters):
        y, final = torch.func.functional_call(module, parameters, (x.detach(),))
        return y.square().sum() + final.sin().sum()

    found = torch.func.grad(loss)(parameters)
    for (name, _), value in zip(module.named_parameters(), wanted[3:], strict=True):
        assert torch.equal(found[name], value)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="checkpoint is 0, wanted at least 1"):
        fastrnn.torch.LSTM(I, H, checkpoint=0)
    module = fastrnn.torch.LSTM(I, H, clip_norm=1.0)
    for name, wrong, error in (
        ("checkpoint", "often", TypeError),
        ("clip_value", -1.0, ValueError),
        ("clip_norm", "1", TypeError),
        ("initial_state", "learned", AttributeError),
    ):
        with pytest.raises(error, match=name):
            setattr(module, name, wrong)
    assert (module.checkpoint, module.clip_value, module.clip_norm) == (None, None, 1.0)
    with pytest.raises(ValueError, match="initial_state is 'ones', wanted one of"):
        fastrnn.torch.GRU(I, H, initial_state="ones")
    x = torch.randn(T, B, I, requires_grad=True)
    y, _ = module(x)
    with pytest.raises(RuntimeError, match="clipped between steps"):
        torch.autograd.grad(torch.autograd.grad(y.sum(), x, create_graph=True)[0].sum(), x)
    with pytest.raises(RuntimeError, match="this is exported, which cannot clip"):
        torch.export.export(module, (x.detach(),))
    with (
        torch_itself(),
        pytest.warns(UserWarning, match="torch's own kernels run"),
        pytest.raises(RuntimeError, match="torch's own kernels run, which cannot clip"),
    ):
        fastrnn.torch.LSTM(I, H, clip_norm=1.0, dtype=torch.complex64)(
            torch.zeros(T, B, I, dtype=torch.complex64)
        )
    learned = nn.Sequential(fastrnn.torch.LSTM(I, H), fastrnn.torch.GRU(H, H))
    learned[1] = fastrnn.torch.GRU(H, H, initial_state="learned")
    with pytest.raises(ValueError, match="'1' has a learned initial state"):
        fastrnn.torch.restore(learned)
    assert type(learned[0]) is fastrnn.torch.LSTM
    with (
        pytest.warns(DeprecationWarning, match="script"),
        pytest.raises(RuntimeError, match="no learned initial state"),
    ):
        torch.jit.script(learned[1])


@pytest.mark.parametrize("options", [{"blocks": 2}, {"norm": "layer"}])
def test_what_only_numpys_layers_have_is_told(options):
    with pytest.raises(TypeError, match=r"modules of torch have none so far: wanted fastrnn\.LSTM"):
        fastrnn.torch.LSTM(3, 8, **options)
