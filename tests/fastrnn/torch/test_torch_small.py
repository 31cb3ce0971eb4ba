"""Calls of little work that are prepared: the same bits, nothing stale, nothing unseen."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import fastrnn.torch
from fastrnn.torch.call import ModuleCall
from fastrnn.torch.packed import packed_of
from own_torch import torch_itself

I, H, T, B = 5, 6, 4, 3


def states(kind, *shape):
    drawn = [torch.randn(*shape), torch.randn(*shape)]
    return tuple(drawn) if "LSTM" in kind else drawn[0]


def bits(found):
    """The tensors of a result, one after the other."""
    return [found] if isinstance(found, torch.Tensor) else [t for one in found for t in bits(one)]


def same(found, wanted):
    pairs = list(zip(bits(found), bits(wanted), strict=True))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def prepared(monkeypatch):
    """Call a module until it is prepared; from then on the other way raises."""

    def call(module, *given):
        with torch.no_grad():
            wanted = module(*given)
            module(*given)
            with monkeypatch.context() as patch:
                patch.setattr(ModuleCall, "forward", None)
                return module(*given), wanted

    return call


LAYERS = {
    "plain": ({}, (T, B)),
    "one row": ({}, (T, 1)),
    "unbatched": ({}, (T,)),
    "two layers, both directions": ({"num_layers": 2, "bidirectional": True}, (T, B)),
    "no bias": ({"bias": False}, (T, B)),
    "batch first, one row": ({"batch_first": True}, (1, T)),
    "batch first, one step": ({"batch_first": True}, (B, 1)),
    "dropout in inference": ({"num_layers": 2, "dropout": 0.5}, (T, B)),
    "double": ({"dtype": torch.float64}, (T, B)),
}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layers_have_the_same_bits(prepared, kind, name, given):
    options, sizes = LAYERS[name]
    module = getattr(fastrnn.torch, kind)(I, H, **options).eval()
    x = torch.randn(*sizes, I, dtype=options.get("dtype"))
    passes = module.num_layers * (1 + module.bidirectional)
    rows = () if len(sizes) == 1 else (sizes[not module.batch_first],)
    start = [one.to(x.dtype) for one in bits(states(kind, passes, *rows, H))]
    hx = (tuple(start) if kind == "LSTM" else start[0]) if given else None
    found, wanted = prepared(module, x, hx)
    assert same(found, wanted)


def test_a_projection_has_the_same_bits(prepared):
    found, wanted = prepared(fastrnn.torch.LSTM(I, H, proj_size=2), torch.randn(T, B, I))
    assert same(found, wanted)


@pytest.mark.parametrize("rows", [(), (1,), (B,)])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_have_the_same_bits(prepared, kind, rows):
    module = getattr(fastrnn.torch, kind)(I, H)
    for hx in (None, states(kind, *rows, H)):
        found, wanted = prepared(module, torch.randn(*rows, I), hx)
        assert same(found, wanted)


def written_by_numpy(module):
    module.weight_ih.detach().numpy()[0, 0] += 1


def replaced(module):
    module.weight_ih = nn.Parameter(module.weight_ih.detach() + 1)


def turned(module):
    module.weight_ih.data = module.weight_ih.data.t()


def parametrized(module):
    class Twice(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(module, "weight_ih", Twice())


WRITES = {
    "in place": lambda module: module.weight_ih.mul_(2),
    "data": lambda module: module.weight_ih.data.mul_(2),
    "state dict": lambda module: module.load_state_dict(fastrnn.torch.RNNCell(H, H).state_dict()),
    "NumPy": written_by_numpy,
    "another parameter": replaced,
    "another layout of the same memory": turned,
    "parametrised": parametrized,
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_into_parameters_is_seen(prepared, name):
    module, x, h = fastrnn.torch.RNNCell(H, H), torch.randn(B, H), torch.randn(B, H)
    before, _ = prepared(module, x, h)
    with torch.no_grad():
        WRITES[name](module)
        for _ in range(4):  # and prepared again, where it can be
            found = module(x, h)
            assert not torch.equal(found, before)
            other = fastrnn.torch.RNNCell(H, H)
            other.load_state_dict({n: getattr(module, n).clone() for n in other.state_dict()})
            assert torch.equal(found, other(x, h))


def test_parameters_of_one_call_alone(prepared):
    module, x = fastrnn.torch.GRUCell(I, H), torch.randn(B, I)
    before, _ = prepared(module, x)
    others = {name: 2 * value.detach() for name, value in module.named_parameters()}
    with torch.no_grad():
        found = torch.func.functional_call(module, others, (x,))
        assert not torch.equal(found, before)
        assert torch.equal(module(x), before)


def test_who_asks_for_gradients_gets_them(prepared):
    module, x = fastrnn.torch.LSTM(I, H), torch.randn(T, B, I, requires_grad=True)
    prepared(module, x)
    y, _ = module(x)
    y.sum().backward()
    assert x.grad.abs().sum() > 0


def test_who_looks_at_operations_or_changes_them_is_asked(prepared):
    module, x = fastrnn.torch.GRU(I, H), torch.randn(T, B, I)
    wanted, _ = prepared(module, x)

    class Looks(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen += 1
            return function(*args, **kwargs or {})

    class Passes(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **kwargs or {})

    with torch.no_grad():
        with Passes():
            assert torch.equal(module(x)[0], wanted[0])
        mapped = torch.func.vmap(lambda one: module(one)[0])(torch.stack([x, x]))
        assert torch.equal(mapped[1], wanted[0])
        with torch_itself(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch's own kernels run
            with Looks() as looks:
                assert torch.allclose(module(x)[0], wanted[0], atol=1e-6)
            assert looks.seen > 1
        with torch.autocast("cpu", torch.float16):
            assert torch.equal(module(x)[0], wanted[0])  # whose states stay in float32


def test_dropout_is_drawn_each_time():
    module, x = fastrnn.torch.LSTM(I, H, 2, dropout=0.5), torch.randn(T, B, I)
    with torch.no_grad():
        found = [module(x)[0] for _ in range(4)]
    assert not any(torch.equal(found[k], found[k + 1]) for k in range(3))


def test_a_call_that_is_under_way_is_left_alone(prepared):
    module, x = fastrnn.torch.GRU(I, H), torch.randn(T, B, I)
    wanted, _ = prepared(module, x)
    (one,) = packed_of(module).small.values()
    one._call._busy[0] = 1
    with torch.no_grad():
        assert same(module(x), wanted)


def test_threads_that_share_a_module_have_their_own_results():
    module, xs = fastrnn.torch.LSTM(I, H, 2), torch.randn(4, T, B, I)
    with torch.no_grad():
        wanted, wrong = [module(x) for x in xs], []

    def call(k):
        with torch.no_grad():
            wrong.extend(n for n in range(300) if not same(module(xs[k]), wanted[k]))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


def test_few_kinds_of_calls_are_kept_and_none_of_much_work():
    module = fastrnn.torch.GRU(I, H)
    with torch.no_grad():
        for steps in range(1, 60):
            for _ in range(3):
                module(torch.zeros(steps, 1, I))
        assert len(packed_of(module).small) <= 16
        for _ in range(3):
            module(torch.zeros(1000, 100, I))
    key = module._how(), torch.Size([1000, 100, I]), torch.float32, (), ""
    assert packed_of(module).small[key] is False


def test_what_does_not_fit_has_the_same_errors():
    module, other = fastrnn.torch.GRUCell(I, H), nn.GRUCell(I, H)
    for x, h in ((torch.zeros(B, I + 1), None), (torch.zeros(B, I), torch.zeros(B + 1, H))):
        with torch.no_grad(), torch_itself(), pytest.raises(RuntimeError) as wanted:
            other(x, h)
        for _ in range(3):
            with torch.no_grad(), torch_itself(), pytest.raises(RuntimeError) as found:
                module(x, h)
            assert str(found.value) == str(wanted.value)
