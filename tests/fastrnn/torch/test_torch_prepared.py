"""Calls that come again with the same sizes are prepared: the same bits, nothing stale."""

import threading
import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import fastrnn.torch
from fastrnn.torch import call as calls
from fastrnn.torch.packed import packed_of
from fastrnn.torch.prepared import Packing
from own_torch import torch_itself

I, H, T, B = 5, 6, 4, 3

LAYERS = {
    "plain": ({}, (T, B)),
    "whole vectors": ({"hidden_size": 32}, (T, B)),
    "work for two threads": ({"hidden_size": 40}, (50, 32)),
    "one row": ({}, (T, 1)),
    "unbatched": ({}, (T,)),
    "batch first": ({"batch_first": True}, (B, T)),
    "two layers, both directions": ({"num_layers": 2, "bidirectional": True}, (T, B)),
    "no bias": ({"bias": False, "num_layers": 2}, (T, B)),
    "double": ({"dtype": torch.float64, "bidirectional": True}, (T, B)),
}
#: What a loss depends on: y, the final states, the last step alone.
LOSSES = {
    "all": lambda y, states: y.sin().sum() + sum(one.square().sum() for one in states),
    "y": lambda y, states: (y * y).sum(),
    "states": lambda y, states: sum(one.sin().sum() for one in states),
    "a broadcast gradient": lambda y, states: y.sum(),
    "a step": lambda y, states: y[-1].square().sum() + y[:, -1].sum(),
}


def states_of(found):
    return [found] if isinstance(found, torch.Tensor) else list(found)


def trained(module, x, hx, loss):
    """All that a step gives: results, and gradients of x, the states and the parameters."""
    module.zero_grad()
    leaves = [one for one in (x, *(() if hx is None else states_of(hx))) if one.requires_grad]
    for leaf in leaves:
        leaf.grad = None
    y, final = module(x, hx)
    total = loss(y, states_of(final))
    total.backward()
    results = [y.detach().clone(), *(one.detach().clone() for one in states_of(final))]
    return results, [one.grad for one in (*leaves, *module.parameters())]


def same(found, wanted):
    pairs = [pair for both in zip(found, wanted, strict=True) for pair in zip(*both, strict=True)]
    return all(
        (a is None and b is None) or (a.shape == b.shape and torch.equal(a, b)) for a, b in pairs
    )


@pytest.fixture
def only_prepared(monkeypatch):
    """From now on what runs calls that are not prepared raises."""

    def begin():
        monkeypatch.setattr(calls, "run_forward", None)
        monkeypatch.setattr(calls, "run_backward", None)

    return begin


def drawn(module, sizes, differentiable, given):
    dtype = module.weight_ih_l0.dtype
    x = torch.randn(*sizes, I, dtype=dtype, requires_grad=differentiable)
    if not given:
        return x, None
    passes = module.num_layers * (1 + module.bidirectional)
    rows = () if len(sizes) == 1 else (sizes[not module.batch_first],)
    widths = [module.proj_size or module.hidden_size, module.hidden_size]
    start = [
        torch.randn(passes, *rows, width, dtype=dtype, requires_grad=differentiable)
        for width in widths
    ]
    return x, (tuple(start) if module.mode == "LSTM" else start[0])


def layer(kind, options):
    arguments = {"hidden_size": H, **options}
    return getattr(fastrnn.torch, kind)(I, arguments.pop("hidden_size"), **arguments)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_steps_have_the_same_bits(only_prepared, kind, name, differentiable, given):
    options, sizes = LAYERS[name]
    module = layer(kind, options)
    x, hx = drawn(module, sizes, differentiable, given)
    losses = [LOSSES[name] for name in LOSSES if len(sizes) > 1 or name != "a step"]
    with torch.no_grad():
        inference = module(x, hx)
    wanted = []
    for loss in losses:
        packed_of(module).prepared.clear()
        wanted.append(trained(module, x, hx, loss))
    with torch.no_grad():
        module(x, hx)
    only_prepared()
    for loss, one in zip(losses, wanted, strict=True):
        assert same(trained(module, x, hx, loss), one)
    with torch.no_grad():
        y, final = module(x, hx)
    assert torch.equal(y, inference[0])
    assert same([states_of(final)], [states_of(inference[1])])


def test_a_projection_has_the_same_bits(only_prepared):
    module = fastrnn.torch.LSTM(I, H, 2, proj_size=2, bidirectional=True)
    x, hx = drawn(module, (T, B), True, True)
    wanted = trained(module, x, hx, LOSSES["all"])
    only_prepared()
    assert same(trained(module, x, hx, LOSSES["all"]), wanted)


@pytest.mark.parametrize("rows", [(), (1,), (B,)])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_have_the_same_bits(only_prepared, kind, rows):
    module, x = getattr(fastrnn.torch, kind)(I, H), torch.randn(*rows, I, requires_grad=True)

    def step():
        states = states_of(module(x))
        total = sum(one.sin().sum() for one in states)
        gradients = torch.autograd.grad(total, [x, *module.parameters()])
        return [one.detach() for one in states], list(gradients)

    wanted = step()
    only_prepared()
    assert same(step(), wanted)


def test_inputs_that_lie_in_another_way(only_prepared):
    module = fastrnn.torch.GRU(I, H)
    given = torch.randn(B, T, I).transpose(0, 1)
    cut = torch.randn(T, B, 2 * I, dtype=torch.complex64).conj().imag[..., ::2]  # of another sign
    wanted = [trained(module, one, None, LOSSES["y"]) for one in (given.contiguous(), cut)]
    only_prepared()
    found = [trained(module, one, None, LOSSES["y"]) for one in (given, cut)]
    assert all(map(same, found, wanted))


@pytest.fixture
def prepared():
    """A module, whose calls on x are prepared, and x."""
    module, x = fastrnn.torch.LSTM(I, H), torch.randn(T, B, I)
    for _ in range(3):
        module(x)[0].sum().backward()
    (one,) = packed_of(module).prepared.values()
    assert one is not None
    return module, x


def replaced(module):
    module.weight_ih_l0 = nn.Parameter(module.weight_ih_l0.detach() + 1)


WRITES = {
    "in place": lambda module: module.weight_hh_l0.detach().mul_(2),
    "data": lambda module: module.weight_ih_l0.data.mul_(2),
    "other data": lambda module: setattr(module.bias_hh_l0, "data", torch.randn(4 * H)),
    "NumPy": lambda module: module.bias_ih_l0.detach().numpy().__iadd__(1),
    "another layout": lambda module: setattr(
        module.weight_hh_l0, "data", torch.randn(H, 4 * H).t()
    ),
    "another parameter": replaced,
    "double": lambda module: module.double(),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_becomes_of_parameters_is_seen(prepared, name):
    module, x = prepared
    before = module(x)[0]
    WRITES[name](module)
    x = x.to(module.weight_ih_l0.dtype)
    other = fastrnn.torch.LSTM(I, H, dtype=x.dtype)
    other.load_state_dict({n: value.clone() for n, value in module.state_dict().items()})
    wanted = trained(other, x, None, LOSSES["all"])
    for _ in range(3):
        assert same(trained(module, x, None, LOSSES["all"]), wanted)
    assert not torch.equal(module(x)[0].to(before.dtype), before)


def test_what_is_asked_for_may_change(prepared):
    module, x = prepared
    trained(module, x, None, LOSSES["all"])
    module.weight_hh_l0.requires_grad_(False)
    module.zero_grad()
    module(x)[0].sum().backward()
    assert module.weight_hh_l0.grad is None
    assert module.weight_ih_l0.grad is not None
    x.requires_grad_()
    module(x)[0].sum().backward()
    found, x.grad = x.grad, None
    other = fastrnn.torch.LSTM(I, H)
    other.load_state_dict(module.state_dict())
    other(x)[0].sum().backward()
    assert torch.equal(x.grad, found)
    module.requires_grad_(False)
    assert not module(x.detach())[0].requires_grad


def test_parameters_of_one_call_alone(prepared):
    module, x = prepared
    before, _ = module(x)
    others = {name: 2 * value.detach() for name, value in module.named_parameters()}
    assert not torch.equal(torch.func.functional_call(module, others, (x,))[0], before)
    assert torch.equal(module(x)[0], before)


def test_another_number_of_threads_gives_the_same_bits():
    module, x = fastrnn.torch.LSTM(I, 48), torch.randn(50, 32, I)
    many = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 1, 2):
            torch.set_num_threads(threads)
            found += [trained(module, x, None, LOSSES["all"]) for _ in range(2)]
    finally:
        torch.set_num_threads(many)
    assert all(same(one, found[0]) for one in found)


def test_transforms_and_modes_go_the_other_way(prepared):
    module, x = prepared
    y = module(x)[0]
    mapped = torch.func.vmap(lambda one: module(one)[0])(torch.stack([x, x]))
    assert torch.equal(mapped[1], y)
    slope = torch.func.grad(lambda one: module(one)[0].sum())(x)
    given = x.clone().requires_grad_()
    module(given)[0].sum().backward()
    assert torch.equal(slope, given.grad)

    class Looks(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen += 1
            return function(*args, **kwargs or {})

    with torch_itself(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch's own kernels run
        with Looks() as looks:
            assert torch.allclose(module(x)[0], y, atol=1e-6)
        assert looks.seen > 1


def test_gradients_that_torch_maps_over(prepared):
    module, x = prepared
    x.requires_grad_()
    y = module(x)[0]
    rows = torch.eye(3)[:, None, :, None] * torch.ones_like(y)
    (found,) = torch.func.vmap(lambda row: torch.autograd.grad(y, x, row, retain_graph=True))(rows)
    for row, one in zip(rows, found, strict=True):
        assert torch.equal(torch.autograd.grad(y, x, row, retain_graph=True)[0], one)


@pytest.mark.filterwarnings("ignore:torch's own kernels run")
@pytest.mark.parametrize("batch_first", [False, True])
def test_second_derivatives(batch_first):
    ours, theirs = (kind(I, H, batch_first=batch_first) for kind in (fastrnn.torch.GRU, nn.GRU))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I, requires_grad=True)
    for _ in range(3):
        found = []
        for module in (ours, theirs):
            with torch_itself():
                y = module(x)[0].sin().sum()
                (dx,) = torch.autograd.grad(y, x, create_graph=True)
                wanted = [x, *module.parameters()]
                found.append(torch.autograd.grad(dx.square().sum(), wanted))
        for mine, its in zip(*found, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_graphs_that_are_kept_and_taken_twice(prepared):
    module, x = prepared
    y = module(x)[0].sin().sum()
    parameters = list(module.parameters())
    first = torch.autograd.grad(y, parameters, retain_graph=True)
    module(torch.randn(T, B, I))[0].sum().backward()  # other calls in between
    assert same([torch.autograd.grad(y, parameters)], [first])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, parameters)


def test_what_was_written_over_is_refused(prepared):
    module, x = prepared
    y = module(x)[0].sum()
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_hooks_see_gradients_and_checkpoints_run_again(prepared):
    module, x = prepared
    wanted = trained(module, x, None, LOSSES["y"])
    seen = []
    handle = module.weight_ih_l0.register_hook(lambda grad: seen.append(grad.clone()) or 2 * grad)
    _, (first, *others) = trained(module, x, None, LOSSES["y"])
    handle.remove()
    assert torch.equal(seen[0], wanted[1][0])
    assert torch.equal(first, 2 * wanted[1][0])
    assert same([others], [wanted[1][1:]])
    module.zero_grad()
    again = checkpoint(lambda one: LOSSES["y"](*module(one)), x, use_reentrant=False)
    again.backward()
    assert same([[one.grad for one in module.parameters()]], [wanted[1]])


def test_gradients_are_taken_as_they_are_and_none_shares_memory(prepared, monkeypatch):
    """torch keeps the tensors that the backward pass gives, without a copy of them."""
    module, x = prepared
    (one,) = packed_of(module).prepared.values()
    given, own = [], one.backward

    def backward(*arguments):
        found = own(*arguments)
        given.extend(gradient.data_ptr() for gradient in found if gradient is not None)
        return found

    monkeypatch.setattr(one, "backward", backward)
    module.zero_grad()
    module(x)[0].sum().backward()
    places = [parameter.grad.data_ptr() for parameter in module.parameters()]
    assert places == given
    assert len(set(places)) == len(places)
    once = [parameter.grad.clone() for parameter in module.parameters()]
    module(x)[0].sum().backward()  # now they are added to what is there
    for parameter, gradient in zip(module.parameters(), once, strict=True):
        assert torch.equal(parameter.grad, 2 * gradient)


def test_threads_that_share_a_module_have_their_own_results(prepared):
    module, _ = prepared
    xs = torch.randn(4, T, B, I)

    def step(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(module(x)[0].sin().sum(), [x, *module.parameters()])

    wanted, wrong = [*map(step, xs)], []

    def train(k):
        wrong.extend(n for n in range(100) if not same([step(xs[k])], [wanted[k]]))

    threads = [threading.Thread(target=train, args=(k,)) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


def test_few_shapes_are_kept_and_none_of_long_calls():
    module = fastrnn.torch.GRU(I, H)
    for steps in range(1, 60):
        module(torch.zeros(steps, 1, I))
    assert len(packed_of(module).prepared) <= 16
    long, x = fastrnn.torch.LSTM(8, 400), torch.zeros(30, 20, 8)
    for _ in range(3):
        long(x)
    assert list(packed_of(long).prepared.values()) == [()]
    assert not packed_of(fastrnn.torch.GRU(I, H)).prepared


def test_weights_of_long_calls_are_packed_by_a_recipe():
    """By several threads, with the bits of those that pack themselves, as at the first call."""
    module = fastrnn.torch.LSTM(8, 200, 2, bidirectional=True)
    x, found = torch.randn(30, 20, 8, requires_grad=True), []
    for _ in range(3):
        with torch.no_grad():
            module.weight_hh_l0.mul_(1)  # a new version: all are packed anew
        results, gradients = trained(module, x, None, LOSSES["all"])
        found.append((results, [one.clone() for one in gradients]))
    own = packed_of(module)
    assert list(own.prepared.values()) == [()]
    (packing,) = own.packing.values()
    assert isinstance(packing, Packing)
    assert same(found[2], found[0])
