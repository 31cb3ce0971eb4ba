"""What does not fit raises what torch raises, in the same words, and reaches no kernel."""

import itertools

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn.torch
from fastrnn.torch import call
from own_torch import pair, torch_itself

T, B, I, H = 3, 2, 4, 5


def x(*shape, **options):
    return torch.zeros(shape or (T, B, I), **options)


def state(*shape, **options):
    return torch.zeros(shape or (1, B, H), **options)


def packed(*shape):
    return pack_padded_sequence(x(*shape), [T, 1])


LAYERS = {
    "width": lambda m: m(x(T, B, I + 1)),
    "width, unbatched": lambda m: m(x(T, I + 1)),
    "one axis": lambda m: m(x(I)),
    "four axes": lambda m: m(x(1, T, B, I)),
    "no steps": lambda m: m(x(0, B, I)),
    "float64": lambda m: m(x(dtype=torch.float64)),
    "integers": lambda m: m(x(dtype=torch.int64)),
    "another type than the weights": lambda m: m.double()(x()),
    "a list": lambda m: m([[1.0] * I] * T),
    "an array": lambda m: m(x().numpy()),
    "None": lambda m: m(None),
    "packed width": lambda m: m(packed(T, B, I + 1)),
    "sparse": lambda m: m(x().to_sparse()),
    "input on another device": lambda m: m(x(device="meta")),
}
STATES = {
    "layers": state(2, B, H),
    "batch": state(1, B + 1, H),
    "width": state(1, B, H + 1),
    "no batch": state(1, H),
    "four axes": state(1, 1, B, H),
    "a number": 1.0,
}


def raised(function, module):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever torch's is)
        function(module)
    return type(caught.value), str(caught.value)


def assert_as_in_torch(kind, function, **options):
    ours, theirs = pair(kind, I, H, **options)
    with torch_itself():
        wanted = raised(function, theirs)
        found = raised(function, ours)
    assert found[0] is wanted[0]
    assert found[0] is not AssertionError
    # torch's LSTM leaves the width of packed data to a product of matrices.
    assert found[1] == wanted[1] or "mat1 and mat2" in wanted[1]


@pytest.fixture(autouse=True)
def no_kernel_is_reached(monkeypatch):
    def reached(*arguments, **options):
        raise AssertionError("a kernel was reached")

    monkeypatch.setattr(call, "run_forward", reached)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_inputs_of_layers(kind, name):
    assert_as_in_torch(kind, LAYERS[name])


INPUTS = {"padded": x(), "packed": packed(), "unbatched": x(T, I)}
FITTING = [("unbatched", "no batch")]


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    ("form", "name"),
    [case for case in itertools.product(INPUTS, STATES) if case not in FITTING],
)
def test_states_of_layers(kind, form, name):
    one, given = STATES[name], INPUTS[form]
    for hx in [(one, state()), (state(), one)] if kind == "LSTM" else [one]:
        if kind == "LSTM" and form == "packed" and name != "a number":
            # torch's own LSTM does not look, and ends the process.
            with pytest.raises(RuntimeError, match=r"Expected hidden\[[01]\] size"):
                fastrnn.torch.LSTM(I, H)(given, hx)
        else:
            assert_as_in_torch(kind, lambda m, hx=hx: m(given, hx))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize(
    "options", [{"dtype": torch.float64}, {"device": "meta"}, {"layout": torch.sparse_coo}], ids=str
)
def test_states_of_another_type_or_device(kind, options):
    """Not as in torch: its kernels for packed sequences end the process."""
    module = getattr(fastrnn.torch, kind)(I, H)
    cell = kind.endswith("Cell")
    good, bad = (state(*((B, H) if cell else ()), **o) for o in ({}, options))
    for hx in [(good, bad), (bad, good)] if kind.startswith("LSTM") else [bad]:
        for given in [x(B, I)] if cell else [x(), packed()]:
            with pytest.raises(RuntimeError, match=r"initial state is .*, this module takes"):
                module(given, hx)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "sizes", [[2, 3, 1], [2, 2], [3, 3, 3], [4, 2, 0], [6, 1, -1], []], ids=str
)
def test_packed_sequences_that_torch_would_not_make(kind, sizes):
    given = PackedSequence(x(6, I), torch.tensor(sizes, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="PackedSequence has 6 steps and batch_sizes"):
        getattr(fastrnn.torch, kind)(I, H)(given)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_data_of_three_axes(kind):
    """torch's own LSTM takes it for a batch of sequences."""
    given = PackedSequence(x(), torch.tensor([2, 1]))
    with pytest.raises(RuntimeError, match="input must have 2 dimensions, got 3"):
        getattr(fastrnn.torch, kind)(I, H)(given)


def test_states_of_an_lstm_are_two():
    for hx in [state(), (state(),), (state(), None), [None, state()], ()]:
        assert_as_in_torch("LSTM", lambda m, hx=hx: m(x(), hx))


CELL_INPUTS = {
    "width": x(B, I + 1),
    "three axes": x(),
    "float64": x(B, I, dtype=torch.float64),
    "None": None,
    "a list": [1.0] * I,
}
CELL_STATES = {
    "width": state(B, H + 1),
    "batch": state(B + 1, H),
    "three axes": state(),
    "a number": 1.0,
}


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("name", CELL_INPUTS)
def test_inputs_of_cells(kind, name):
    assert_as_in_torch(kind, lambda m: m(CELL_INPUTS[name]))


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("name", CELL_STATES)
def test_states_of_cells(kind, name):
    one = CELL_STATES[name]
    for hx in [(one, state(B, H)), (state(B, H), one)] if kind == "LSTMCell" else [one]:
        assert_as_in_torch(kind, lambda m, hx=hx: m(x(B, I), hx))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_arguments_of_the_constructor(kind):
    for arguments in [(0, 3), (3, -1), (3, 3, 0), ("3", 3)]:
        wanted = raised(lambda k, a=arguments: getattr(torch.nn, k)(*a), kind)
        assert raised(lambda k, a=arguments: getattr(fastrnn.torch, k)(*a), kind) == wanted
