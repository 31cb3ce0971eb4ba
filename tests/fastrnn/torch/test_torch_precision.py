"""Autocast, and modules of bfloat16 and float16: torch's types, and smaller errors than torch's.

What comes out is what fastrnn's kernels give in float32, rounded once.
"""

import copy
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import fastrnn
import fastrnn.torch
from fastrnn.torch import packed, precision
from graphs_torch import flat
from own_torch import pair, torch_itself
from precision_torch import KINDS, LOW, WAYS, B, H, I, T, computed, inputs, made

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections is not supported with oneDNN"  # torch says so once
)


def grid():
    """Kinds, ways, low types, forms, types of x and of initial states, None for zeros."""
    for name, way, low in product(KINDS, WAYS, LOW):
        forms = ["batched", "unbatched"] + ([] if name.endswith("Cell") else ["packed"])
        types = [low, torch.float32] if way == "autocast" else [low]
        for form, of_x, of_states in product(forms, types, [None, *types]):
            yield name, way, low, form, of_x, of_states


def computed_by_torch(*arguments, **options):
    """The same, or None where torch raises as the CPU has no such LSTM of oneDNN's."""
    try:
        with torch_itself():
            return computed(*arguments, **options)
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        return None


@pytest.mark.parametrize(("name", "way", "low", "form", "of_x", "of_states"), [*grid()], ids=str)
def test_types_are_torchs_and_values_those_of_float32(name, way, low, form, of_x, of_states):
    ours, theirs, wide = made(name, way, low)
    x, states = inputs(ours, form, of_x, of_states)
    autocast = low if way == "autocast" else None
    for training in (True, False):
        found = computed(ours, x, states, form, autocast, training)
        wanted = computed_by_torch(theirs, x, states, form, autocast, training)
        if wanted is None:
            types = [[low] * 3, [one.dtype for one in (x, *states, *ours.parameters())]]
        else:
            types = [[one.dtype for one in part] for part in wanted]
        assert [one.dtype for one in found[0]] == types[0]
        in_float32 = computed(wide, x.float(), [s.float() for s in states], form, None, training)
        if training:
            assert [one.dtype for one in found[1]] == types[1]
        elif low is torch.bfloat16 and packed.current().pairs:
            continue  # products were of bfloat16
        for part, whole in zip(found, in_float32, strict=True):
            for one, other in zip(part, whole, strict=True):
                d_out = other.to(one.dtype)
                assert torch.equal(one, d_out)


def error(found, reference):
    """Root of the sum of squares, of each tensor beside its own size."""
    parts = zip(found, reference, strict=True)
    return sum(((a.double() - b).square().sum() / b.square().sum()) for a, b in parts) ** 0.5


@pytest.mark.parametrize("low", LOW, ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KINDS)
def test_errors_are_smaller_than_torchs(name, way, low):
    ours, theirs, _ = made(name, way, low, I=24, H=32)
    x, states = inputs(ours, "batched", low, low)
    truth = copy.deepcopy(theirs).double()
    autocast = low if way == "autocast" else None
    with torch_itself():
        reference = computed(truth, x.double(), [one.double() for one in states], "batched")
        wanted = [
            computed(theirs, x, states, "batched", autocast, training) for training in (True, False)
        ]
    for training, torchs in zip((True, False), wanted, strict=True):
        found = computed(ours, x, states, "batched", autocast, training)
        # Where both round the factors of products to bfloat16, errors are of one size.
        rounded = not training and low is torch.bfloat16 and packed.current().pairs
        most = 1.5 if rounded else 1.0
        for part, of_torch, true in zip(found, torchs, reference, strict=False):
            if part:
                assert error(part, true) < most * error(of_torch, true)


@pytest.mark.parametrize("low", LOW, ids=str)
@pytest.mark.parametrize("name", ["LSTM both ways", "GRU both ways", "RNNCell"])
def test_products_of_bfloat16_are_for_inference(name, low, monkeypatch):
    """Where a CPU has them; they are computed on any, and a flag tells of such a CPU here."""
    ours, _, wide = made(name, "autocast", low)
    x, states = inputs(ours, "batched", torch.float32, torch.float32)
    before = computed(ours, x, states, "batched", low)
    monkeypatch.setattr(packed, "current", lambda: SimpleNamespace(pairs=True))
    for one, other in zip(computed(ours, x, states, "batched", low), before, strict=True):
        assert all(map(torch.equal, one, other))
    kind, options = KINDS[name]
    dtype = "bfloat16" if low is torch.bfloat16 else "float32"
    numpys = getattr(fastrnn, kind)(I, H, dtype=dtype, **options)
    numpys.load_state_dict({k: v.detach().numpy() for k, v in wide.named_parameters()})
    state = [one.numpy() for one in states]
    wanted = numpys(x.numpy(), tuple(state) if len(state) > 1 else state[0])
    found, _ = computed(ours, x, states, "batched", low, training=False)
    wanted = flat_of_arrays(wanted)
    for one, array in zip(found, wanted, strict=True):
        assert torch.equal(one, torch.from_numpy(array).to(one.dtype))


def flat_of_arrays(results):
    if isinstance(results, tuple):
        return [one for part in results for one in flat_of_arrays(part)]
    return [results]


def test_where_onednn_takes_an_lstm_it_comes_in_autocasts_type(monkeypatch):
    """As on a CPU with its bfloat16, whatever the states are; cells are not among it."""
    monkeypatch.setattr(precision, "by_onednn", lambda dtype, gradients: True)
    for name in ("LSTM", "LSTM both ways", "LSTM-projected", "LSTMCell", "GRU"):
        ours, _, _ = made(name, "autocast", torch.bfloat16)
        x, states = inputs(ours, "batched", torch.bfloat16, torch.float32)
        found = computed(ours, x, states, "batched", torch.bfloat16)[0]
        low = {"LSTM": 3, "LSTM both ways": 3, "LSTM-projected": 2}.get(name, 0)
        wanted = [torch.bfloat16] * low + [torch.float32] * (len(found) - low)
        assert [one.dtype for one in found] == wanted


def test_packed_rows_of_one_length_have_the_types_of_others():
    layer = fastrnn.torch.LSTM(I, H)
    rows = [torch.randn(n, I) for n in (3, 3, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        for some in (rows, rows[:2]):
            assert {one.dtype for one in flat(layer(pack_sequence(some)))} == {torch.float32}


def test_autocast_leaves_float64_alone():
    layer, x = fastrnn.torch.GRU(I, H, dtype=torch.float64), torch.randn(T, B, I).double()
    wanted = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        with torch_itself(), pytest.raises(RuntimeError, match="same dtype"):  # torch's own
            layer(x.float())
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "GRUCell"])
def test_modules_refuse_other_types_as_torch_does(name):
    ours, _, _ = made(name, "module", torch.bfloat16)
    x, states = inputs(ours, "batched", torch.bfloat16, torch.float32)
    hx = tuple(states) if len(states) > 1 else states[0]
    with pytest.raises(RuntimeError, match=r"initial state is torch\.float32"):
        ours(x, hx)
    with torch_itself(), pytest.raises((ValueError, RuntimeError), match="dtype"):
        ours(x.float())


def test_dropout_draws_torchs_masks():
    ours, theirs = pair("GRU", I, H, 2, dropout=0.5)
    ours.bfloat16(), theirs.bfloat16()
    x, found = torch.randn(T, B, I).bfloat16(), []
    for module in (ours, theirs):
        torch.manual_seed(5)
        with torch_itself():
            found.append(module(x)[0].float())
    # Another mask would be off by as much as what it leaves out.
    torch.testing.assert_close(*found, rtol=0, atol=0.02)
