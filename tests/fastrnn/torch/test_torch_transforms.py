"""torch.func, second derivatives, inference mode: all give right results."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, stack_module_state, vjp, vmap
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn.torch
from cases import TOLERANCE, assert_close
from own_torch import pair, torch_itself

T, B, I, H = 3, 2, 2, 3
KINDS = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"]
SECOND = "ignore:torch's own kernels run. fastrnn's kernels have first derivatives"
FORWARD = "ignore:torch's own kernels run. fastrnn's kernels have derivatives in reverse"


def first(results):
    return results if isinstance(results, torch.Tensor) else first(results[0])


def functions(kind, **options):
    """A module of the kind in float64 as a function of all its inputs, and these."""
    module = getattr(fastrnn.torch, kind)(I, H, dtype=torch.float64, **options)
    names = [name for name, _ in module.named_parameters()]
    cell, lstm = kind.endswith("Cell"), kind.startswith("LSTM")
    x = torch.randn((B, I) if cell else (T, B, I), dtype=torch.float64)
    many = 1 if cell else module.num_layers * (1 + module.bidirectional)
    width = options.get("proj_size") or H
    shapes = [(B, width), (B, H)] if cell else [(many, B, width), (many, B, H)]
    state = [torch.randn(shape, dtype=torch.float64) for shape in shapes[: 1 + lstm]]

    def function(x, *rest):
        state, parameters = rest[: 1 + lstm], dict(zip(names, rest[1 + lstm :], strict=True))
        results = functional_call(module, parameters, (x, state if lstm else state[0]))
        flat = [results] if isinstance(results, torch.Tensor) else [*results]
        return [one for part in flat for one in ([part] if torch.is_tensor(part) else part)]

    inputs = [x, *state, *(p.detach() for p in module.parameters())]
    return function, [one.requires_grad_() for one in inputs]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind):
    function, inputs = functions(kind)
    assert gradcheck(function, inputs, fast_mode=True)


@pytest.mark.filterwarnings(SECOND)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in KINDS),
        ("LSTM", {"proj_size": 2, "bidirectional": True}),
        ("GRU", {"num_layers": 2, "batch_first": False, "bidirectional": True}),
        ("RNN", {"bias": False, "nonlinearity": "relu"}),
    ],
    ids=str,
)
def test_second_derivatives_by_finite_differences(kind, options):
    function, inputs = functions(kind, **options)
    if not options.get("bias", True):
        inputs = inputs[:4]
    with torch_itself():
        assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.filterwarnings(SECOND)
@pytest.mark.parametrize("form", ["batch first", "unbatched", "packed", "dropout"])
def test_second_derivatives_equal_torchs(form):
    options = {"dropout": 0.4} if form == "dropout" else {}
    pair_of = pair(
        "LSTM", I, H, 2, batch_first=form == "batch first", bidirectional=True, **options
    )
    x = torch.randn((T, I) if form == "unbatched" else (B, T, I))
    if form in ("packed", "dropout"):
        x = x.transpose(0, 1).contiguous()
    found = []
    for module in pair_of:
        torch.manual_seed(2)
        leaf = x.clone().requires_grad_()
        given = (
            pack_padded_sequence(leaf, [2, 3], enforce_sorted=False) if form == "packed" else leaf
        )
        with torch_itself():
            y, _ = module(given)
            y = y.data if isinstance(y, PackedSequence) else y
            (dx,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
            found.append(torch.autograd.grad(dx.square().sum(), [leaf, *module.parameters()]))
    for one, other in zip(*found, strict=True):
        assert_close(one.numpy(), other.numpy(), TOLERANCE["float32"])


@pytest.mark.filterwarnings(SECOND)
def test_a_gradient_penalty_that_depends_on_itself():
    """The gradient of y stems from y: its path must not be counted twice. And a third time."""
    ours, theirs = pair("GRU", I, H, dtype=torch.float64)
    x, found = torch.randn(T, B, I, dtype=torch.float64), []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        with torch_itself():
            value = module(leaf)[0].pow(3).sum()
            for _ in range(2):
                (d,) = torch.autograd.grad(value, leaf, create_graph=True)
                value = d.square().sum()
            found.append(torch.autograd.grad(value, [leaf, *module.parameters()]))
    for one, other in zip(*found, strict=True):
        assert_close(one.numpy(), other.numpy(), TOLERANCE["float64"])


@pytest.mark.parametrize("kind", KINDS)
def test_grad_and_vjp(kind):
    ours, theirs = pair(kind, I, H)
    x = torch.randn((B, I) if kind.endswith("Cell") else (T, B, I))
    found = []
    for module in (ours, theirs):

        def loss(parameters, x, module=module):
            return first(functional_call(module, parameters, (x,))).square().sum()

        parameters = dict(module.named_parameters())
        with torch_itself() if module is theirs else torch.no_grad():
            d_parameters, dx = grad(loss, argnums=(0, 1))(parameters, x)
            _, pull = vjp(lambda x, module=module: first(module(x)), x)
            found.append([*d_parameters.values(), dx, *pull(first(module(x)).detach())])
    for one, other in zip(*found, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), TOLERANCE["float32"])


@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
def test_vmap_over_inputs_and_gradients_for_each_sample(kind):
    module = getattr(fastrnn.torch, kind)(I, H)
    xs = torch.randn(4, *((B, I) if kind.endswith("Cell") else (T, B, I)))
    parameters = dict(module.named_parameters())

    def loss(parameters, x):
        return first(functional_call(module, parameters, (x,))).square().sum()

    with torch.no_grad():
        assert torch.equal(
            vmap(lambda x: first(module(x)))(xs), torch.stack([first(module(x)) for x in xs])
        )
    found = vmap(grad(loss), in_dims=(None, 0))(parameters, xs)
    for k, x in enumerate(xs):
        wanted = torch.autograd.grad(loss(parameters, x), [*parameters.values()])
        for name, one in zip(parameters, wanted, strict=True):
            assert_close(found[name][k].detach().numpy(), one.numpy(), TOLERANCE["float32"])


def test_vmap_over_an_ensemble():
    modules = [fastrnn.torch.LSTM(I, H) for _ in range(3)]
    parameters, buffers = stack_module_state(modules)
    x = torch.randn(T, B, I)

    def run(parameters, buffers):
        return functional_call(modules[0], (parameters, buffers), (x,))[0]

    found = vmap(run)(parameters, buffers)
    assert_close(
        found.detach().numpy(),
        torch.stack([module(x)[0] for module in modules]).detach().numpy(),
        1e-6,
    )


def test_vmap_draws_dropout_as_it_is_told():
    module = fastrnn.torch.LSTM(I, H, 2, dropout=0.5)
    xs = torch.randn(T, B, I).expand(6, T, B, I)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="randomness"):
            vmap(lambda x: module(x)[0])(xs)
        same = vmap(lambda x: module(x)[0], randomness="same")(xs)
        other = vmap(lambda x: module(x)[0], randomness="different")(xs)
    assert all(torch.equal(one, same[0]) for one in same)
    assert not all(torch.equal(one, other[0]) for one in other)


@pytest.mark.filterwarnings(FORWARD)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch, in jacfwd
def test_jacobians():
    ours, theirs = pair("GRU", I, H, dtype=torch.float64)
    x = torch.randn(T, 1, I, dtype=torch.float64)
    found = jacrev(lambda x: ours(x)[0])(x)
    with torch_itself():
        wanted = jacrev(lambda x: theirs(x)[0])(x)
        forward = jacfwd(lambda x: ours(x)[0])(x)
    assert_close(found.detach().numpy(), wanted.detach().numpy(), TOLERANCE["float64"])
    assert_close(forward.detach().numpy(), wanted.detach().numpy(), TOLERANCE["float64"])


@pytest.mark.filterwarnings(SECOND)
def test_the_gradient_of_a_gradient_by_torch_func():
    ours, theirs = pair("LSTM", I, H, dtype=torch.float64)
    x, found = torch.randn(T, B, I, dtype=torch.float64), []
    for module in (ours, theirs):

        def slope(x, module=module):
            return grad(lambda x: module(x)[0].square().sum())(x).square().sum()

        with torch_itself():
            found.append(grad(slope)(x))
    assert_close(found[0].detach().numpy(), found[1].detach().numpy(), TOLERANCE["float64"])


def test_gradients_in_a_batch_of_the_older_kind_are_refused():
    module = fastrnn.torch.LSTM(I, H)
    x = torch.randn(T, B, I, requires_grad=True)
    y, _ = module(x)
    d = torch.randn(4, T, B, H)
    with pytest.raises(NotImplementedError, match=r"use torch\.func\.vmap over torch\.func\.vjp"):
        torch.autograd.grad(y, x, d, is_grads_batched=True)
    y, pull = vjp(lambda x: module(x)[0], x)
    (found,) = vmap(pull)(d)
    for k in range(4):
        assert torch.equal(found[k], pull(d[k])[0])


def test_inference_mode():
    ours, theirs = pair("LSTM", I, H, 2, bidirectional=True)
    x = torch.randn(T, B, I)
    with torch.inference_mode():
        y, _ = ours(x)
        with torch_itself():
            wanted, _ = theirs(x)
        assert y.is_inference()
        assert_close(y.numpy(), wanted.numpy(), TOLERANCE["float32"])
    ours(x)[0].sum().backward()
