"""Models written for torch, after one call: swapped in place, and they train the same."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import fastrnn.torch
from cases import TOLERANCE, assert_close
from fastrnn.torch import accelerate, packed
from own_torch import torch_itself, unguarded

KINDS = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 24, 2, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(48, 5)

    def forward(self, tokens):
        y, _ = self.lstm(self.embedding(tokens))
        return self.linear(y)


def losses(model, steps=100):
    """Of a task that takes memory: to name the token before, modulo 5."""
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    random, found = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        tokens = torch.randint(50, (16, 12), generator=random)
        loss = nn.functional.cross_entropy(model(tokens).transpose(1, 2), tokens.roll(1, 1) % 5)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        found.append(loss.item())
    return found


@pytest.mark.smoke
def test_a_model_trains_to_the_same_losses():
    model = Tagger()
    other = copy.deepcopy(model)
    report = accelerate(other)
    assert report.swapped == ("lstm",)
    assert not report.left
    assert str(report) == "lstm: swapped"
    with torch_itself():
        wanted = losses(model)
    found = losses(other)
    # The bound of the issue: Adam carries what rounding there is from step to step.
    assert found == pytest.approx(wanted, abs=1e-4)
    assert found[-1] < 0.5 * found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_itself_recurrent(kind):
    module = getattr(nn, kind)(3, 4)
    report = accelerate(module)
    assert type(module) is getattr(fastrnn.torch, kind)
    assert report.swapped == ("",)
    assert str(report) == "the model itself: swapped"
    assert accelerate(module).left == {"": "is fastrnn's already"}


def test_objects_parameters_hooks_and_modes_stay():
    class Decoder(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.cells = nn.ModuleList([nn.LSTMCell(3, 4), nn.GRUCell(4, 4)])
            self.shared = shared
            self.by_name = nn.ModuleDict({"tanh": nn.RNN(3, 4)})

    shared = nn.GRU(3, 4)
    model = nn.Sequential(shared, Decoder(shared))
    model[1].by_name["tanh"].eval()
    seen = []
    shared.register_forward_hook(lambda *_: seen.append(1))
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    report = accelerate(model)
    assert report.swapped == ("0", "1.cells.0", "1.cells.1", "1.by_name.tanh")
    assert dict(model.named_modules()) == modules
    assert all(one is parameters[name] for name, one in model.named_parameters())
    assert model[0] is model[1].shared
    assert shared.training
    assert not model[1].by_name["tanh"].training
    before = shared(torch.ones(2, 1, 3))[0]
    assert seen == [1]
    before.sum().backward()
    optimiser.step()
    assert not torch.equal(before, shared(torch.ones(2, 1, 3))[0])


def test_what_is_left_is_named_with_its_reason():
    class Chatty(nn.LSTM):
        def forward(self, x, hx=None):
            return super().forward(x, hx)

    model = nn.ModuleDict({"own": Chatty(3, 4), "linear": nn.Linear(3, 4), "plain": nn.LSTM(3, 4)})
    report = accelerate(model)
    assert report.swapped == ("plain",)
    assert report.left == {"own": "is a Chatty, which may have a forward pass of its own"}
    assert str(report).splitlines()[0] == "plain: swapped"
    assert str(accelerate(nn.Linear(3, 4))) == "no recurrent modules"
    with pytest.raises(TypeError, match=r"model is a list, wanted a torch\.nn\.Module"):
        accelerate([nn.LSTM(3, 4)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scripted_and_quantised_modules_are_left():
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(3, 4)), {nn.LSTM})
    assert accelerate(quantised).left == {"0": "is quantised"}
    swapped = nn.Sequential(nn.LSTM(3, 4))
    accelerate(swapped)  # too early, as docs/torch.md says
    swapped = torch.ao.quantization.quantize_dynamic(swapped, {nn.LSTM})
    assert type(swapped[0]) is fastrnn.torch.LSTM
    with unguarded():
        scripted = nn.Sequential(torch.jit.script(nn.GRU(3, 4)))
    assert accelerate(scripted).left == {"0": "is compiled by TorchScript"}


def test_parametrised_modules():
    module = nn.Sequential(parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"))
    x = torch.randn(5, 2, 3)
    with torch_itself(), torch.no_grad():
        wanted, _ = module(x)
    assert accelerate(module).swapped == ("0",)
    with torch.no_grad():
        found, _ = module(x)
        assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float32"])
    assert parametrize.is_parametrized(module[0])
    assert len(list(module.parameters())) == 5
    parametrize.remove_parametrizations(module[0], "weight_hh_l0")
    assert type(module[0]) is fastrnn.torch.LSTM


def test_restore_is_the_way_back():
    model = nn.ModuleDict({
        "swapped": nn.LSTM(3, 4),
        "ours": fastrnn.torch.GRU(3, 4),
        "cell": nn.GRUCell(3, 4),
        "parametrised": parametrizations.weight_norm(nn.RNN(3, 4), "weight_hh_l0"),
        "linear": nn.Linear(3, 4),
    })  # fmt: skip
    x, before = torch.randn(5, 2, 3), dict(model.named_modules())
    with torch_itself(), torch.no_grad():
        wanted, _ = model["swapped"](x)
    accelerate(model)
    model["swapped"](x)
    assert fastrnn.torch.restore(model) == ("swapped", "ours", "cell", "parametrised")
    assert dict(model.named_modules()) == before
    kinds = [nn.LSTM, nn.GRU, nn.GRUCell, nn.RNN, nn.Linear]
    found = [parametrize.type_before_parametrizations(one) for one in model.values()]
    assert found == kinds
    assert type(model["swapped"]) is nn.LSTM
    assert model["swapped"] not in packed._of_modules
    with torch_itself(), torch.no_grad():
        assert torch.equal(model["swapped"](x)[0], wanted)
        model["parametrised"](x)
    assert fastrnn.torch.restore(model) == ()
    assert accelerate(model).swapped == ("swapped", "ours", "cell", "parametrised")
    module = fastrnn.torch.LSTM(3, 4)
    assert fastrnn.torch.restore(module) == ("",)
    assert type(module) is nn.LSTM
    with pytest.raises(TypeError, match=r"model is a str, wanted a torch\.nn\.Module"):
        fastrnn.torch.restore("model")


class Encoder(nn.Module):
    """A model that torch.fx can trace: its recurrent module is one node."""

    def __init__(self, kind):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.recurrent = getattr(nn, kind)(3, 4)
        self.recurrent.register_forward_hook(count)

    def forward(self, x, hx=None):
        return self.recurrent(self.linear(x), hx=hx)


calls = []


def count(*_):
    calls.append(1)


def flat(results):
    if isinstance(results, torch.Tensor):
        return [results]
    return [one for part in results for one in flat(part)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_of_torch_fx_runs_on_fastrnns_kernels(kind):
    plain, model = Encoder(kind), Encoder(kind)
    model.load_state_dict(plain.state_dict())
    accelerate(model)
    calls.clear()
    traced, wanted = torch.fx.symbolic_trace(model), torch.fx.symbolic_trace(plain)
    assert not calls
    assert str(traced.graph) == str(wanted.graph)
    layers = () if kind.endswith("Cell") else (1,)
    x, state = torch.randn(*layers, 2, 3), torch.randn(*layers, 2, 4)
    hx = (state, state.cos()) if kind.startswith("LSTM") else state
    with torch_itself():
        expected = flat(wanted(x, hx))
    for one in (traced, copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert type(one.recurrent) is getattr(fastrnn.torch, kind)
        calls.clear()
        for found, other in zip(flat(one(x, hx)), expected, strict=True):
            assert_close(found.detach().numpy(), other.detach().numpy(), TOLERANCE["float32"])
        assert len(calls) == 1


#: The introduction that everyone learns from; only the import differs.
SNIPPET = """
import torch
import torch.nn as nn
{imported}

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = LSTM(10, 20, batch_first=True)
        self.fc = nn.Linear(20, 1)

    def forward(self, input):
        h0 = torch.zeros(1, input.size(0), 20).to(input.device)
        c0 = torch.zeros(1, input.size(0), 20).to(input.device)
        out, (hn, cn) = self.lstm(input, (h0, c0))
        return self.fc(out[:, -1, :])

torch.manual_seed(0)
model = Model()
{after}
output = model(torch.randn(32, 50, 10))
output.sum().backward()
"""


def test_the_classic_snippet():
    own, ours = "from torch.nn import LSTM", "from fastrnn.torch import LSTM"
    names = []
    for imported, after in [
        (own, ""), (ours, ""), (own, "import fastrnn.torch\nfastrnn.torch.accelerate(model)"),
    ]:  # fmt: skip
        names.append({"__name__": "snippet"})
        code = SNIPPET.format(imported=imported, after=after)
        if len(names) == 1:
            with torch_itself():
                exec(compile(code, "snippet", "exec"), names[-1])
        else:
            exec(compile(code, "snippet", "exec"), names[-1])
    wanted, *others = names
    assert wanted["output"].shape == (32, 1)
    for found in others:
        assert type(found["model"].lstm) is fastrnn.torch.LSTM
        pairs = zip(found["model"].parameters(), wanted["model"].parameters(), strict=True)
        tensors = [(found["output"], wanted["output"]), *((p.grad, q.grad) for p, q in pairs)]
        for one, other in tensors:
            assert_close(one.detach().numpy(), other.detach().numpy(), TOLERANCE["float32"])
