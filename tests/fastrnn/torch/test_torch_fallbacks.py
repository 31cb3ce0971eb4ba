"""Proof that fastrnn's kernels run: torch's own raise here, but in the cases of a written list.

All other tests of this folder run under the same guard.
"""

import copy
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.func import jvp
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode

import fastrnn.torch
from cases import TOLERANCE, assert_close
from fastrnn.torch import FALLBACKS, devices
from own_torch import OWN_KERNELS, pair, torch_itself, unguarded

T, B, I, H = 3, 2, 4, 5
FOLDER = Path(__file__).resolve().parents[3]
KINDS = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"]


def first(results):
    return results if isinstance(results, torch.Tensor) else first(results[0])


def example(kind, **options):
    return torch.randn((B, I) if kind.endswith("Cell") else (T, B, I), **options)


class Own(torch.Tensor):
    """A tensor class that changes nothing."""


def complex_numbers(module, x):
    return module.to(torch.complex64)(x.to(torch.complex64))


def as_on_a_gpu(module, x):
    """What a trace for a GPU would find: torch makes such tensors without one."""

    def there(tensor):
        return torch.empty(tensor.shape, dtype=x.dtype, device="cuda")

    with FakeTensorMode():
        for name, parameter in [*module.named_parameters()]:
            setattr(module, name, torch.nn.Parameter(there(parameter)))
        return module, there(x)


def in_bfloat16_on_a_gpu(module, x):
    module, x = as_on_a_gpu(module, x.bfloat16())
    assert module._in_graph(x, None) is NotImplemented


def under_autocast_of_a_gpu(module, x):
    module, x = as_on_a_gpu(module, x)
    torch.set_autocast_enabled("cuda", True)
    try:
        assert module._in_graph(x, None) is NotImplemented
    finally:
        torch.set_autocast_enabled("cuda", False)


def on_meta(module, x):
    return module.to("meta")(x.to("meta"))


def traced(module, x):
    traced = torch.jit.trace(module, x, check_trace=False)
    assert_close(first(traced(x + 1)).detach().numpy(), first(module(x + 1)).detach().numpy(), 1e-5)
    return traced(x)


def as_subclass(module, x):
    return module(x.as_subclass(Own))


def in_a_mode(module, x):
    with FlopCounterMode(display=False):
        return module(x)


def forward_mode(module, x):
    module, x = module.double(), x.double()  # torch's float32 kernels refuse
    return jvp(lambda x: first(module(x)), (x,), (torch.ones_like(x),))


def twice(module, x):
    (d,) = torch.autograd.grad(first(module(x)).sum(), module.weight_hh_l0, create_graph=True)
    d.square().sum().backward()
    return module(x)


#: The whole list: each reason with the cases that are to reach it, and no others.
CASES = {
    "dtype": [complex_numbers, in_bfloat16_on_a_gpu],
    "autocast": [under_autocast_of_a_gpu],
    "device": [on_meta],
    "traced": [traced],
    "subclass": [as_subclass],
    "mode": [in_a_mode],
    "forward-mode": [forward_mode],
    "second derivative": [twice],
}


def test_the_list_is_whole():
    assert list(CASES) == list(FALLBACKS)
    text = (FOLDER / "docs" / "torch.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in FALLBACKS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit.trace
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize(
    ("kind", "reason", "case"),
    [
        *(("LSTM", reason, case) for reason, cases in CASES.items() for case in cases),
        *(("GRUCell", "autocast", case) for case in CASES["autocast"]),
    ],
)
def test_a_fallback_says_so_once_of_the_users_line(kind, reason, case, recwarn):
    why = re.compile("torch's own kernels run: " + FALLBACKS[reason].replace("{}", ".*"))
    for _ in range(2):
        with torch_itself():
            case(getattr(fastrnn.torch, kind)(I, H), example(kind))
    (told,) = [one for one in recwarn if "own kernels" in str(one.message)]
    assert why.fullmatch(str(told.message))
    lines, first_line = inspect.getsourcelines(case)
    assert told.filename == __file__
    assert first_line <= told.lineno < first_line + len(lines)


@pytest.mark.filterwarnings("ignore:torch's own kernels run")
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [complex_numbers, as_subclass])
def test_a_fallback_gives_what_torch_gives(kind, case):
    ours, theirs = pair(kind, I, H)
    x = example(kind)
    with torch_itself(), torch.no_grad():
        torch.manual_seed(1)
        found = first(case(ours, x))
        torch.manual_seed(1)
        wanted = first(case(theirs, x))
    assert found.dtype == wanted.dtype
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_torchs_own_modules_do_reach_the_guard(kind):
    """Else the guard would prove nothing."""
    module = getattr(torch.nn, kind)(I, H)
    with pytest.raises(AssertionError, match="torch's own"):
        module(example(kind))
    if not kind.endswith("Cell"):
        with pytest.raises(AssertionError, match="torch's own"):
            module(pack_sequence([example("GRUCell")]))


def test_the_guard_knows_every_kernel():
    """A new kernel of torch's would go past it."""
    names = {name for name in dir(torch._C._VariableFunctions) if re.search("rnn|lstm|gru", name)}
    others = {name for name in names if re.search("mps|mkldnn|cudnn|miopen|quantized|fused", name)}
    assert names - others == set(OWN_KERNELS)


def test_a_gpu_without_fastrnns_kernels_is_named(monkeypatch):
    """Without a GPU here, its index stands in for it."""
    monkeypatch.setattr(devices, "_gpus", [])
    devices._cuda.cache_clear()

    def missing(device):
        raise RuntimeError("device 'cuda' cannot be used: cupy not installed")

    monkeypatch.setattr(devices, "kernels_for", missing)
    assert devices._cuda(0) == (None, "device 'cuda' cannot be used: cupy not installed")
    device, why = devices._cuda(1)
    assert device is None
    assert why == "fastrnn uses one GPU of a process, 0 here, not 1"
    devices._cuda.cache_clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_compiles_torchs_own_module():
    ours, theirs = pair("LSTM", I, H, 2, bidirectional=True)
    x = example("LSTM")
    with unguarded():
        scripted = torch.jit.script(torch.nn.Sequential(ours))
        found, wanted = scripted(x)[0], theirs(x)[0]
    assert_close(found.detach().numpy(), wanted.detach().numpy(), TOLERANCE["float32"])
    with torch.no_grad():
        ours.weight_hh_l0.zero_()  # both have the same parameters
    assert type(ours) is fastrnn.torch.LSTM
    found, wanted = scripted(x)[0], ours(x)[0]
    assert_close(found.detach().numpy(), wanted.detach().numpy(), TOLERANCE["float32"])


class Nested(torch.nn.Module):
    """A module in two places, one of them deep within."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent, self.linear = recurrent, torch.nn.Linear(3, I)
        self.within = torch.nn.ModuleList([torch.nn.ModuleDict({"again": recurrent})])

    def forward(self, x):
        return self.recurrent(self.linear(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_torchscript_leaves_the_model_as_it_is(kind, tmp_path):
    ours, theirs = pair(kind, I, H)
    model, plain = Nested(ours), Nested(theirs)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 3) if kind.endswith("Cell") else torch.randn(5, 2, 3)
    with unguarded():
        scripted = torch.jit.script(model)
        torch.jit.save(scripted, tmp_path / "scripted.pt")
        loaded = torch.jit.load(tmp_path / "scripted.pt")
        wanted = plain(x)
        for compiled in (scripted, loaded):
            torch.testing.assert_close(compiled(x), wanted)
    assert model.recurrent is ours
    assert model.within[0]["again"] is ours
    assert type(ours) is getattr(fastrnn.torch, kind)
    torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-6)  # by fastrnn's kernels
    again = copy.deepcopy(model)
    assert fastrnn.torch.restore(again)
    with unguarded():
        torch.testing.assert_close(torch.jit.script(again)(x), wanted)
        assert fastrnn.torch.accelerate(again).swapped
        torch.testing.assert_close(torch.jit.script(again)(x), wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_takes_a_cell_by_itself():
    ours, theirs = pair("GRUCell", I, H)
    x = torch.randn(2, I)
    with unguarded():
        torch.testing.assert_close(torch.jit.script(ours)(x), theirs(x))
    assert type(ours) is fastrnn.torch.GRUCell


class Doubled(fastrnn.torch.GRUCell):
    def forward(self, x):
        return 2 * x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_compiles_the_forward_of_a_subclass():
    model = torch.nn.Sequential(Doubled(I, H))
    x = torch.randn(2, I)
    torch.testing.assert_close(torch.jit.script(model)(x), 2 * x)
