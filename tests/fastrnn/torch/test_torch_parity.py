"""Outputs, final states and every gradient of fastrnn.torch, against torch's own modules."""

import itertools

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from cases import TOLERANCE, assert_close
from own_torch import pair, torch_itself

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections is not supported with oneDNN"  # torch says so once
)
LAYERS = {
    "RNN-tanh": ("RNN", {}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM-projected": ("LSTM", {"proj_size": 3}),
    "GRU": ("GRU", {}),
}
CELLS = {
    "RNNCell-tanh": ("RNNCell", {}),
    "RNNCell-relu": ("RNNCell", {"nonlinearity": "relu"}),
    "LSTMCell": ("LSTMCell", {}),
    "GRUCell": ("GRUCell", {}),
}
DTYPES = [torch.float32, torch.float64]
BOOLS = [False, True]
T, B, I, H = 4, 5, 3, 7


def leaves(*tensors):
    return [one.detach().clone().requires_grad_() for one in tensors]


def flat(results):
    """y, h and c of what a module returned, without the batch sizes of a PackedSequence."""
    if isinstance(results, torch.nn.utils.rnn.PackedSequence):
        return [results.data]
    if isinstance(results, torch.Tensor):
        return [results]
    return [one for part in results for one in flat(part)]


def state_of(module, batch):
    """A random initial state of a layer, as it takes it."""
    many = module.num_layers * (1 + module.bidirectional)
    dtype = next(module.parameters()).dtype
    h = torch.randn(many, *batch, module.proj_size or module.hidden_size, dtype=dtype)
    if not isinstance(module, torch.nn.LSTM):
        return (h,)
    return h, torch.randn(many, *batch, module.hidden_size, dtype=dtype)


def differentiated(module, x, state, form=lambda x: x):
    """Results, and gradients of a random loss of all of them, with the same numbers each time."""
    x, *state = leaves(x, *state)
    hx = None if not state else tuple(state) if len(state) > 1 else state[0]
    results = flat(module(form(x), hx))
    random = torch.Generator().manual_seed(1)
    loss = sum((one * torch.randn(one.shape, generator=random)).sum() for one in results)
    return results, torch.autograd.grad(loss, [x, *state, *module.parameters()])


def assert_same(ours, theirs, x, state, form=lambda x: x):
    """Also the strides: who views a result has to be able to."""
    tolerance = TOLERANCE[str(x.dtype).partition(".")[2]]
    found = differentiated(ours, x, state, form)
    with torch_itself():
        wanted = differentiated(theirs, x, state, form)
    for one, other in zip(itertools.chain(*found), itertools.chain(*wanted), strict=True):
        assert one.dtype == other.dtype
        assert_close(one.detach().numpy(), other.detach().numpy(), tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bias", BOOLS, ids=["no bias", "bias"])
@pytest.mark.parametrize("bidirectional", BOOLS, ids=["one way", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("given", BOOLS, ids=["zeros", "state"])
@pytest.mark.parametrize("form", ["time first", "batch first", "unbatched", "packed", "sorted"])
def test_layers(dtype, name, bias, bidirectional, num_layers, given, form):
    kind, options = LAYERS[name]
    options = {**options, "bias": bias, "bidirectional": bidirectional, "dtype": dtype}
    first = form == "batch first"
    ours, theirs = pair(kind, I, H, num_layers, batch_first=first, **options)
    shape = {"batch first": (B, T, I), "unbatched": (T, I)}.get(form, (T, B, I))
    batch = () if form == "unbatched" else (B,)
    state = state_of(ours, batch) if given else ()

    def packed(x):
        lengths = [4, 3, 3, 2, 1] if form == "sorted" else [2, 4, 1, 3, 3]
        return pack_padded_sequence(x, lengths, enforce_sorted=form == "sorted")

    form_of = packed if form in ("packed", "sorted") else lambda x: x
    assert_same(ours, theirs, torch.randn(shape, dtype=dtype), state, form_of)
    with torch.no_grad():  # takes no tape, and another way
        x = form_of(torch.randn(shape, dtype=dtype))
        found = flat(ours.eval()(x))
        with torch_itself():
            wanted = flat(theirs.eval()(x))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one.numpy(), other.numpy(), TOLERANCE[str(dtype).partition(".")[2]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bias", BOOLS, ids=["no bias", "bias"])
@pytest.mark.parametrize("given", BOOLS, ids=["zeros", "state"])
@pytest.mark.parametrize("batch", [(B,), (0,), ()], ids=str)
def test_cells(dtype, name, bias, given, batch):
    kind, options = CELLS[name]
    ours, theirs = pair(kind, I, H, bias=bias, dtype=dtype, **options)
    states = 2 if kind == "LSTMCell" else 1
    state = [torch.randn(*batch, H, dtype=dtype) for _ in range(states if given else 0)]
    assert_same(ours, theirs, torch.randn(*batch, I, dtype=dtype), state)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("packed", BOOLS, ids=["padded", "packed"])
def test_larger_than_any_block(kind, packed):
    ours, theirs = pair(kind, 33, 70, 2, bidirectional=True)
    lengths = torch.randint(1, 31, (17,))
    lengths[5] = 30

    def form(x):
        return pack_padded_sequence(x, lengths, enforce_sorted=False) if packed else x

    assert_same(ours, theirs, torch.randn(30, 17, 33), state_of(ours, (17,)), form)


@pytest.mark.parametrize("packed", BOOLS, ids=["padded", "packed"])
@pytest.mark.parametrize("batch_first", BOOLS, ids=["time first", "batch first"])
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_dropout_has_the_masks_that_torch_draws(packed, batch_first, p):
    ours, theirs = pair("LSTM", I, H, 3, dropout=p, bidirectional=True, batch_first=batch_first)
    x = torch.randn(B, T, I) if batch_first else torch.randn(T, B, I)

    def form(x):
        torch.manual_seed(5)
        if not packed:
            return x
        return pack_padded_sequence(x, [2, 4, 1, 3, 3], batch_first, enforce_sorted=False)

    assert_same(ours, theirs, x, (), form)
    first, second = ours(form(x))[0], ours(x if not packed else form(x))[0]
    if p < 1 and not packed:
        assert not torch.equal(first, second)  # another mask


def test_gradients_in_eval_mode_and_of_states_alone():
    ours, theirs = pair("GRU", I, H, 2, dropout=0.5)
    ours.eval(), theirs.eval()
    assert_same(ours, theirs, torch.randn(T, B, I), state_of(ours, (B,)))
    for parameter in ours.parameters():
        parameter.requires_grad_(False)
    x, h = torch.randn(T, B, I), torch.randn(2, B, H, requires_grad=True)
    (found,) = torch.autograd.grad(ours(x, h)[1].sum(), h)
    with torch_itself():
        (wanted,) = torch.autograd.grad(theirs(x, h)[1].sum(), h)
    assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float32"])


def test_strided_inputs_and_gradients():
    ours, theirs = pair("LSTM", I, H)
    x = torch.randn(T, 2 * B, 2 * I)[:, ::2, ::2]
    y, _ = ours(x)
    d = torch.randn(B, T, H).transpose(0, 1)
    found = torch.autograd.grad(y, list(ours.parameters()), d)
    expanded = torch.autograd.grad(ours(x)[0].sum(), list(ours.parameters()))  # of strides 0
    with torch_itself():
        wanted = torch.autograd.grad(theirs(x)[0], list(theirs.parameters()), d)
        wanted += torch.autograd.grad(theirs(x)[0].sum(), list(theirs.parameters()))
    for one, other in zip((*found, *expanded), wanted, strict=True):
        assert_close(one.numpy(), other.numpy(), TOLERANCE["float32"])


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_batch_of_none(kind):
    ours, _ = pair(kind, I, H, bidirectional=True)
    x = torch.randn(T, 0, I, requires_grad=True)
    y, _ = ours(x)
    assert y.shape == (T, 0, 2 * H)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all((one.grad == 0).all() for one in ours.parameters())


def test_results_share_memory_with_numpy():
    """Neither the input nor what comes out is copied."""
    from fastrnn.torch.devices import device_of

    x = torch.randn(T, B, I)
    device, _ = device_of(x)
    assert device.array(x).__array_interface__["data"][0] == x.data_ptr()
    taken = device.kernels.take(device.array(x))
    assert taken.__array_interface__["data"][0] == x.data_ptr()
    y = device.kernels.empty((300, 20, 7), taken.dtype)
    assert device.tensor(y).data_ptr() == y.__array_interface__["data"][0]
