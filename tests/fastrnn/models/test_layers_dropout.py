"""Dropout: between layers, while training, drawn from the generator that was given."""

import numpy as np
import pytest

import fastrnn
import reference
from cases import CELLS, TOLERANCE, as_state, assert_close, make, problem, states

RATE = 0.25
T, B, I, H = 6, 5, 3, 7


def layer_of(cell, num_layers=2, **options):
    options = {"dropout": RATE, "dtype": "float64"} | options
    return make(cell, I, H, num_layers, **options)


def draw(bidirectional, T, B, H, seed):
    """The mask that a layer of two draws from a generator: 0, or 1 / (1 - rate).

    The lower layer of this ReLU network puts out 1 everywhere and the upper one hands on
    what reaches it (its first direction the first H values, the second the others), so that
    its output is the mask.
    """
    layer = fastrnn.RNN(1, H, 2, "relu", dropout=RATE, bidirectional=bidirectional, dtype="float64")
    weights = {name: np.zeros_like(a) for name, a in layer.state_dict().items()}
    identity = np.eye(H * (1 + bidirectional))
    for k, suffix in enumerate(["", "_reverse"][: 1 + bidirectional]):
        weights["bias_ih_l0" + suffix][:] = 1
        weights["weight_ih_l1" + suffix][:] = identity[k * H : (k + 1) * H]
    layer.update(weights)
    y, _, _ = layer.forward(np.zeros((T, B, 1)), rng=np.random.default_rng(seed))
    return y


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_mask_is_zero_or_the_scale(bidirectional):
    mask = draw(bidirectional, 50, 20, 16, seed=0)
    # 1 / 0.75 is rounded, and so are the products with it.
    assert np.isin(mask.round(12), [0, round(1 / (1 - RATE), 12)]).all()
    # n independent draws: the share of zeros has a deviation of sqrt(p (1 - p) / n); four of
    # them bound a share that does not depend on chance, since the seed is fixed.
    for axis in (None, (0, 1), (0, 2), (1, 2)):  # all; each unit; each row; each step
        share = np.mean(mask == 0, axis=axis)
        n = mask.size / np.size(share)
        assert np.abs(share - RATE).max() < 4 * np.sqrt(RATE * (1 - RATE) / n)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_forward_and_gradients_with_the_mask(cell, bidirectional):
    """The reference with the same mask, and finite differences through it."""
    kind, options = CELLS[cell]
    layer = layer_of(cell, bidirectional=bidirectional)
    p = problem(layer, T, B)
    mask = draw(bidirectional, T, B, H, seed=4)
    y, state, tape = layer.forward(p.x, as_state(p.state), rng=np.random.default_rng(4))
    parameters = layer.state_dict()

    def forward(x, **moved):
        moved = parameters | moved
        return reference.layer(kind, moved, x, p.state, masks=[mask], **options)

    wanted, wanted_state, _ = forward(p.x)
    assert_close(y, wanted, TOLERANCE["float64"], "y")
    for mine, its in zip(states(state), wanted_state, strict=True):
        assert_close(mine, its, TOLERANCE["float64"], "state")

    def loss(given):
        return reference.inner(forward(**given)[:1], [p.dy])

    gradients = layer.backward(tape, p.dy)
    # Central differences err by some 1e-10 (see reference.STEP) times a few dozen terms.
    given = {"x": p.x} | {name: parameters[name] for name in ("bias_ih_l0", "bias_ih_l1")}
    for name, wanted in reference.finite_differences(loss, given).items():
        assert_close(({"x": gradients.x} | gradients.parameters)[name], wanted, 1e-8, name)


@pytest.mark.parametrize("cell", CELLS)
def test_never_after_the_last_layer(cell):
    """All is dropped between the layers: the second then runs on zeros, undropped."""
    layer = layer_of(cell, dropout=1.0)
    p = problem(layer, T, B)
    kind, options = CELLS[cell]
    wanted, _, _ = reference.layer(
        kind, layer.state_dict(), p.x, p.state, masks=[np.zeros((T, B, H))], **options
    )
    y, _, tape = layer.forward(p.x, as_state(p.state))
    assert_close(y, wanted, TOLERANCE["float64"], "y")
    gradients = layer.backward(tape, p.dy)
    assert not gradients.x.any()
    assert not gradients.parameters["weight_ih_l0"].any()
    assert not gradients.parameters["weight_ih_l1"].any()
    assert gradients.parameters["weight_hh_l1"].any()


@pytest.mark.parametrize("cell", CELLS)
def test_off_outside_training(cell):
    layer, plain = layer_of(cell), layer_of(cell, dropout=0.0)
    p = problem(layer, T, B)
    y, _, tape = layer.forward(p.x, as_state(p.state), training=False)
    wanted, _, plain_tape = plain.forward(p.x, as_state(p.state))
    assert np.array_equal(y, wanted)
    assert np.array_equal(layer(p.x, as_state(p.state))[0], wanted)
    found, its = layer.backward(tape, p.dy), plain.backward(plain_tape, p.dy)
    assert np.array_equal(found.x, its.x)
    for name in its.parameters:
        assert np.array_equal(found.parameters[name], its.parameters[name])


def test_the_generator_decides():
    """The same seed gives the same mask, another one another; the generator moves on."""
    layer = layer_of("LSTM")
    p = problem(layer, T, B)
    rng = np.random.default_rng(1)
    first, second = (layer.forward(p.x, rng=rng)[0] for _ in range(2))
    again, _, _ = layer.forward(p.x, rng=np.random.default_rng(1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_without_a_generator_the_layers_own_seed_decides():
    layer, twin, other = layer_of("LSTM"), layer_of("LSTM"), layer_of("LSTM", seed=1)
    other.load_state_dict(layer.state_dict())
    p = problem(layer, T, B)
    first, second = (layer.forward(p.x)[0] for _ in range(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(twin.forward(p.x)[0], first)
    assert not np.array_equal(other.forward(p.x)[0], first)


def test_a_given_generator_leaves_the_layers_own_alone():
    layer, twin = layer_of("GRU"), layer_of("GRU")
    p = problem(layer, T, B)
    layer.forward(p.x, rng=np.random.default_rng(1))
    layer.forward(p.x, training=False)
    layer(p.x)
    assert np.array_equal(layer.forward(p.x)[0], twin.forward(p.x)[0])


def test_each_gap_has_a_mask_of_its_own():
    """Three layers that hand on: the output is the product of two masks, not a square."""
    layer = fastrnn.RNN(1, 16, 3, "relu", dropout=RATE, dtype="float64")
    weights = {name: np.zeros_like(a) for name, a in layer.state_dict().items()}
    weights["bias_ih_l0"][:] = 1
    for k in (1, 2):
        weights[f"weight_ih_l{k}"][:] = np.eye(16)
    layer.update(weights)
    y, _, _ = layer.forward(np.zeros((50, 20, 1)), rng=np.random.default_rng(0))
    kept = (1 - RATE) ** 2
    deviation = np.sqrt(kept * (1 - kept) / y.size)
    assert abs(np.mean(y != 0) - kept) < 4 * deviation
    assert np.allclose(y[y != 0], 1 / kept, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_first_and_lengths(dtype):
    """Dropout leaves padding at 0 and rows of their own length consistent."""
    layer = layer_of("GRU", batch_first=True, bidirectional=True, dtype=dtype)
    p = problem(layer, T, B).swap()
    lengths = np.array([2, 6, 0, 1, 4])
    y, _, tape = layer.forward(p.x, lengths=lengths, rng=np.random.default_rng(0))
    padding = np.arange(T) >= lengths[:, None]
    assert not y[padding].any()
    gradients = layer.backward(tape, p.dy)
    assert not gradients.x[padding].any()
    assert np.isfinite(gradients.x).all()
    assert y.dtype == gradients.x.dtype == np.dtype(dtype)


def test_one_layer_with_dropout_warns():
    with pytest.warns(UserWarning, match="dropout"):
        layer = fastrnn.LSTM(I, H, dropout=RATE, dtype="float64", seed=0)
    plain = fastrnn.LSTM(I, H, dtype="float64", seed=0)
    p = problem(layer, T, B)
    assert np.array_equal(layer.forward(p.x, p.state)[0], plain.forward(p.x, p.state)[0])
