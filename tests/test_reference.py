"""The reference itself: torch gives the same values, and its gradients match torch's."""

import numpy as np
import pytest
import torch

import reference

KINDS = {
    "RNN-tanh": ("RNN", {"nonlinearity": "tanh"}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM-projected": ("LSTM", {"proj_size": 2}),
    "GRU": ("GRU", {}),
}
T, B, I, H = 5, 4, 3, 6
#: Both sides compute in float64 with values of order 1; only the order of the sums differs.
ROUNDING = 1e-13


def torch_layer(name, **options):
    kind, own = KINDS[name]
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, dtype=torch.float64, **own, **options)
    parameters = {key: value.detach().numpy().copy() for key, value in module.named_parameters()}
    return module, kind, parameters


def problem(name, num_layers, directions):
    random = np.random.default_rng(1)
    P = KINDS[name][1].get("proj_size", H)
    widths = [P, H] if name.startswith("LSTM") else [P]
    state = tuple(random.standard_normal((num_layers * directions, B, w)) for w in widths)
    return random.standard_normal((T, B, I)), state


def cell_options(name):
    return {k: v for k, v in KINDS[name][1].items() if k == "nonlinearity"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lengths", [None, [2, 5, 1, 3]])
def test_layer_equals_torch(name, bidirectional, bias, lengths):
    module, kind, parameters = torch_layer(
        name, num_layers=2, bidirectional=bidirectional, bias=bias
    )
    x, state = problem(name, 2, 1 + bidirectional)
    y, final, _ = reference.layer(kind, parameters, x, state, lengths, **cell_options(name))

    hx = tuple(torch.tensor(s) for s in state)
    hx = hx if kind == "LSTM" else hx[0]
    given = torch.tensor(x)
    if lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            given, torch.tensor(lengths), enforce_sorted=False
        )
    torch_y, torch_final = module(given, hx)
    if lengths is not None:
        torch_y, _ = torch.nn.utils.rnn.pad_packed_sequence(torch_y)
    np.testing.assert_allclose(y, torch_y.detach().numpy(), rtol=0, atol=ROUNDING)
    torch_final = torch_final if kind == "LSTM" else (torch_final,)
    for mine, its in zip(final, torch_final, strict=True):
        np.testing.assert_allclose(mine, its.detach().numpy(), rtol=0, atol=ROUNDING)


@pytest.mark.smoke
def test_finite_differences_equal_autograd():
    module, kind, parameters = torch_layer("LSTM-projected", num_layers=1, bidirectional=True)
    x, state = problem("LSTM", 1, 2)
    state = (state[0][..., :2].copy(), state[1])
    dy = np.random.default_rng(2).standard_normal((T, B, 4))

    def loss(given):
        return reference.inner(reference.layer(kind, given, given["x"], state)[:1], [dy])

    given = torch.tensor(x, requires_grad=True)
    y, _ = module(given, tuple(torch.tensor(s) for s in state))
    (y * torch.tensor(dy)).sum().backward()
    # Central differences err by some 1e-10 (see reference.STEP) on gradients of order 1 to 10.
    wanted = {"x": given.grad} | {key: p.grad for key, p in module.named_parameters()}
    found = reference.finite_differences(loss, {"x": x} | parameters)
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        np.testing.assert_allclose(found[key], gradient.numpy(), rtol=0, atol=1e-8, err_msg=key)


def test_gru_that_resets_before_the_product():
    """One unit, by hand: here R_n (r h) = r (R_n h), so only b_hn tells the two apart."""
    w = {
        "weight_ih": np.zeros((1, 3)),
        "weight_hh": np.array([[0.0, 0.0, 2.0]]),
        "bias_ih": np.zeros(3),
        "bias_hh": np.array([0.0, 0.0, 0.5]),
    }
    x, h = np.zeros(1), np.array([0.25])  # r = z = 1/2
    (before,), _ = reference.gru_step(w, x, (h,), reset_after=False)
    (after,), _ = reference.gru_step(w, x, (h,), reset_after=True)
    assert before[0] == pytest.approx(0.5 * np.tanh(0.25 + 0.5) + 0.125)
    assert after[0] == pytest.approx(0.5 * np.tanh(0.5 * (0.5 + 0.5)) + 0.125)


def test_gru_before_equals_after_where_the_reset_gate_is_open():
    _, _, parameters = torch_layer("GRU")
    parameters["bias_ih_l0"][:H] = 50.0  # r = 1 to the last bit
    x, state = problem("GRU", 1, 1)
    before, _, _ = reference.layer("GRU", parameters, x, state, reset_after=False)
    after, _, _ = reference.layer("GRU", parameters, x, state, reset_after=True)
    np.testing.assert_allclose(before, after, rtol=0, atol=ROUNDING)


def test_segments_cut_before_the_marked_steps():
    reset = np.array([1, 0, 1, 1, 0, 1], bool)
    assert reference.segments(5, reset) == [range(2), range(2, 3), range(3, 5)]
    assert reference.segments(2, reset) == [range(2)]
    assert reference.segments(0, reset) == [range(0)]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_reset_equals_segments_run_apart(bidirectional):
    _, _, parameters = torch_layer("LSTM", bidirectional=bidirectional)
    x, state = problem("LSTM", 1, 1 + bidirectional)
    reset = np.zeros((T, B), bool)
    reset[2] = True
    y, final, _ = reference.layer("LSTM", parameters, x, state, reset=reset)
    first, first_final, _ = reference.layer("LSTM", parameters, x[:2], state)
    second, second_final, _ = reference.layer("LSTM", parameters, x[2:], state)
    assert np.array_equal(y, np.concatenate([first, second]))
    for whole, a, b in zip(final, first_final, second_final, strict=True):
        assert np.array_equal(whole[0], b[0])
        if bidirectional:  # the reverse direction ends at step 0
            assert np.array_equal(whole[1], a[1])


def test_dropout_mask_stands_between_layers():
    _, _, parameters = torch_layer("GRU", num_layers=2)
    x, state = problem("GRU", 2, 1)
    mask = np.random.default_rng(3).integers(0, 2, (T, B, H)) * 2.0
    lower = {k: v for k, v in parameters.items() if k.endswith("l0")}
    upper = {k.replace("l1", "l0"): v for k, v in parameters.items() if k.endswith("l1")}
    between, _, _ = reference.layer("GRU", lower, x, (state[0][:1],))
    wanted, _, _ = reference.layer("GRU", upper, between * mask, (state[0][1:],))
    y, _, _ = reference.layer("GRU", parameters, x, state, masks=[mask])
    assert np.array_equal(y, wanted)


def test_memory_that_the_library_never_writes_is_nan():
    library = {"__name__": "fastrnn.somewhere", "np": np}
    mine = {"__name__": "somewhere", "np": np}
    code = "a = np.empty(9, np.float32); b = np.empty_like(a); n = np.empty(9, np.int64)"
    exec(code, library)
    exec("import numpy; a = numpy.empty(9); a[:] = 1", mine)
    assert np.isnan(library["a"]).all()
    assert np.isnan(library["b"]).all()
    assert library["n"].dtype == np.int64
    assert np.array_equal(mine["a"], np.ones(9))
