"""What torch does with modules, done with fastrnn's: copies, files, hooks, utilities."""

import copy
import io
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import fastrnn.torch
from cases import TOLERANCE, assert_close
from own_torch import pair, torch_itself

T, B, I, H = 5, 3, 4, 6
KINDS = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"]


def first(results):
    """y of a layer, h of a cell."""
    return results if isinstance(results, torch.Tensor) else first(results[0])


def example(kind):
    return torch.randn(B, I) if kind.endswith("Cell") else torch.randn(T, B, I)


def same(ours, theirs, x, tolerance=TOLERANCE["float32"]):
    with torch.no_grad(), torch_itself():
        wanted = first(theirs(x))
    assert_close(first(ours(x)).detach().numpy(), wanted.numpy(), tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_is_torchs_module(kind):
    ours, theirs = pair(kind, I, H)
    assert isinstance(ours, getattr(torch.nn, kind))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    torch.manual_seed(3)
    ours.reset_parameters()
    torch.manual_seed(3)
    theirs.reset_parameters()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    same(ours, theirs, example(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_copies_and_files(kind, used):
    ours, theirs = pair(kind, I, H)
    x = example(kind)
    if used:
        ours(x)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    others = [
        copy.deepcopy(ours), copy.copy(ours), pickle.loads(pickle.dumps(ours)),
        torch.load(file, weights_only=False),
    ]  # fmt: skip
    for other in others:
        assert type(other) is type(ours)
        assert vars(other).keys() == vars(theirs).keys()  # nothing of fastrnn's is in it
        same(other, theirs, x)


def test_checkpoints_go_both_ways():
    _, theirs = pair("LSTM", I, H, 2, bidirectional=True)
    file = io.BytesIO()
    torch.save(theirs.state_dict(), file)
    file.seek(0)
    other = fastrnn.torch.LSTM(I, H, 2, bidirectional=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    same(other, theirs, torch.randn(T, B, I))
    with pytest.raises(RuntimeError, match="size mismatch for weight_ih_l0"):
        fastrnn.torch.LSTM(I + 1, H, 2, bidirectional=True).load_state_dict(theirs.state_dict())


def test_to_and_double():
    ours, theirs = pair("GRU", I, H)
    x = torch.randn(T, B, I)
    same(ours.double(), theirs.double(), x.double(), TOLERANCE["float64"])
    same(ours.to("cpu", torch.float32), theirs.float(), x)
    ours.to("meta")
    assert ours.weight_hh_l0.is_meta


@pytest.mark.smoke
def test_gradients_are_clipped_hooked_and_accumulated():
    ours, theirs = pair("LSTM", I, H)
    x, seen = torch.randn(T, B, I), []
    ours.register_forward_hook(lambda module, args, result: seen.append(result[0]))
    ours.register_full_backward_hook(lambda *_: seen.append("backward"))
    norms = []
    for module in (ours, theirs):
        for _ in range(2):
            with torch_itself():
                module(x.requires_grad_())[0].sum().backward()
        norms.append(float(clip_grad_norm_(module.parameters(), 0.1)))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert len(seen) == 4
    assert seen[1::2] == ["backward"] * 2


@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrizations(kind, norm):
    name = "weight_hh" if kind.endswith("Cell") else "weight_hh_l0"
    ours, theirs = pair(kind, I, H)
    torch.manual_seed(1)
    norm(ours, name)
    torch.manual_seed(1)
    norm(theirs, name)
    ours.eval(), theirs.eval()
    x = example(kind)
    same(ours, theirs, x)
    gradients = []
    for module in (ours, theirs):
        with torch_itself():
            gradients.append(torch.autograd.grad(first(module(x)).sum(), [*module.parameters()]))
    for found, wanted in zip(*gradients, strict=True):
        assert_close(found.numpy(), wanted.numpy(), TOLERANCE["float32"])
    with torch.no_grad():
        ours(x)  # torch copies no weights that have a history, nor those of its own modules
    same(copy.deepcopy(ours), theirs, x)
    for module in (ours, theirs):
        parametrize.remove_parametrizations(module, name)
    assert type(ours) is getattr(fastrnn.torch, kind)
    same(ours, theirs, x)


def test_pruning():
    ours, theirs = pair("LSTM", I, H)
    for module in (ours, theirs):
        prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    same(ours, theirs, torch.randn(T, B, I))


def test_packed_sequences_come_out_in_the_order_that_they_came_in():
    ours, _ = pair("GRU", I, H)
    rows = [torch.randn(length, I) for length in (2, 5, 1, 3)]
    packed = pack_sequence(rows, enforce_sorted=False)
    y, h = ours(packed)
    assert y.unsorted_indices is packed.unsorted_indices
    assert y.batch_sizes is packed.batch_sizes
    padded, lengths = pad_packed_sequence(y)
    assert lengths.tolist() == [2, 5, 1, 3]
    for b, row in enumerate(rows):
        alone, end = ours(row)
        assert_close(padded[: len(row), b].detach().numpy(), alone.detach().numpy(), 1e-6)
        assert_close(h[:, b].detach().numpy(), end.detach().numpy(), 1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed(reentrant):
    ours, _ = pair("LSTM", I, H)
    x = torch.randn(T, B, I, requires_grad=True)
    wanted = torch.autograd.grad(ours(x)[0].sum(), [x])
    y = checkpoint(lambda x: ours(x)[0], x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, wanted[0])


def test_the_tape_ends_with_the_backward_pass():
    """While the loss is still there: the next forward pass finds the memory free."""
    ours, _ = pair("LSTM", I, H)
    loss = ours(torch.randn(T, B, I))[0].sum()
    node = loss.grad_fn
    while "_Plain" not in type(node).__name__:
        node = node.next_functions[0][0]
    held = [weakref.ref(one) for one in node.saved_tensors if not one.is_leaf or one.dim() > 3]
    taped = len(node.saved_tensors)
    assert taped > 5
    assert held
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        node.saved_tensors  # noqa: B018
    assert not any(one() is not None for one in held)


def test_saved_tensors_go_through_hooks():
    ours, _ = pair("LSTM", I, H)
    x = torch.randn(T, B, I, requires_grad=True)
    (wanted,) = torch.autograd.grad(ours(x)[0].sum(), x)
    stored = []

    def pack(tensor):
        stored.append(tensor.clone())
        return len(stored) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, stored.__getitem__):
        y = ours(x)[0]
    assert len(stored) >= 8
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
def test_replicas_as_data_parallel_makes_them(kind):
    """Shallow copies that get copies of the parameters as plain tensors with a history."""
    ours, theirs = pair(kind, I, H)
    x, found = example(kind), []
    for module in (ours, theirs):
        replica = module._replicate_for_data_parallel()
        replica._parameters = {}
        for name, parameter in module.named_parameters():
            setattr(replica, name, parameter * 2)
        with torch_itself():
            y = first(replica(x))
        found.append([y, *torch.autograd.grad(y.sum(), [*module.parameters()])])
    for one, other in zip(*found, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), TOLERANCE["float32"])


def test_threads_share_a_module():
    ours, theirs = pair("LSTM", I, H, 2)
    xs = [torch.randn(T, B, I) for _ in range(8)]
    with torch_itself(), torch.no_grad():
        wanted = [theirs(x)[0] for x in xs]

    def work(x):
        with torch.no_grad():
            return [ours(x)[0] for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for several, one in zip(pool.map(work, xs), wanted, strict=True):
            for found in several:
                assert_close(found.numpy(), one.numpy(), TOLERANCE["float32"])
