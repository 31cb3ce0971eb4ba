"""reset=: a row with resets equals its segments run apart, each from the initial state."""

import itertools

import numpy as np
import pytest

from cases import (
    CELLS,
    DTYPES,
    TOLERANCE,
    Problem,
    as_state,
    assert_close,
    assert_same_bits,
    make,
    problem,
    run,
)

T, B = 7, 3
CUTS = [0, 2, 3, 6, 7]  # segments of 2, 1, 3 and 1 steps


def mask(*steps):
    reset = np.zeros((T, B), bool)
    reset[list(steps)] = True
    return reset


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_segments(cell, bidirectional, dtype):
    """Outputs and dx to the last bit; sums over segments to rounding."""
    layer = make(cell, 5, 7, bidirectional=bidirectional, dtype=dtype)
    p = problem(layer, T, B)
    whole = run(layer, p, reset=mask(2, 3, 6))
    parts = []
    for start, end in itertools.pairwise(CUTS):
        # The final state is the last segment's forwards, the first segment's backwards.
        arriving = [np.zeros_like(d) for d in p.dstate]
        for zeros, d in zip(arriving, p.dstate, strict=True):
            if end == T:
                zeros[0] = d[0]
            if start == 0 and bidirectional:
                zeros[1] = d[1]
        steps = slice(start, end)
        parts.append(run(layer, Problem(p.x[steps], p.state, p.dy[steps], tuple(arriving))))

    assert np.array_equal(whole.y, np.concatenate([part.y for part in parts]))
    assert np.array_equal(whole.dx, np.concatenate([part.dx for part in parts]))
    for k, final in enumerate(whole.state):
        assert np.array_equal(final[0], parts[-1].state[k][0])
        if bidirectional:
            assert np.array_equal(final[1], parts[0].state[k][1])
    for k, gradient in enumerate(whole.dstate):
        wanted = sum(part.dstate[k] for part in parts)
        assert_close(gradient, wanted, TOLERANCE[dtype], "gradient of the initial state")
    for name, gradient in whole.parameters.items():
        wanted = sum(part.parameters[name] for part in parts)
        assert_close(gradient, wanted, TOLERANCE[dtype], name)


@pytest.mark.parametrize("cell", CELLS)
def test_reset_before_the_first_step_changes_nothing(cell):
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, T, B)
    assert_same_bits(run(layer, p, reset=mask(0)), run(layer, p))


@pytest.mark.parametrize("cell", CELLS)
def test_a_mask_of_false_changes_nothing(cell):
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, T, B)
    assert_same_bits(run(layer, p, reset=mask()), run(layer, p))


@pytest.mark.parametrize("cell", CELLS)
def test_reset_at_padding_changes_nothing(cell):
    """Also right at the end of a sequence, where no step follows."""
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, T, B)
    lengths = np.array([4, 0, 6])
    padding = np.arange(T)[:, None] >= lengths
    assert_same_bits(run(layer, p, reset=padding, lengths=lengths), run(layer, p, lengths=lengths))


@pytest.mark.parametrize("cell", CELLS)
def test_reset_at_every_step_makes_each_step_a_first_one(cell):
    layer = make(cell, 5, 7, bidirectional=True)
    p = problem(layer, T, B)
    y, _ = layer(p.x, as_state(p.state), reset=mask(*range(T)))
    for t in range(T):
        step, _ = layer(p.x[t : t + 1], as_state(p.state))
        assert np.array_equal(y[t : t + 1], step)


@pytest.mark.parametrize("cell", CELLS)
def test_rows_are_reset_apart(cell):
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, T, B)
    reset = np.random.default_rng(1).random((T, B)) < 0.4
    y, _ = layer(p.x, as_state(p.state), reset=reset)
    for b in range(B):
        rows = slice(b, b + 1)
        initial = as_state([s[:, rows] for s in p.state])
        alone, _ = layer(p.x[:, rows], initial, reset=reset[:, rows])
        assert np.array_equal(y[:, rows], alone)


@pytest.mark.parametrize("cell", CELLS)
def test_nan_does_not_cross_a_reset(cell):
    """A state multiplied by 0, the usual way to reset one, would let it through: 0 * NaN is NaN."""
    layer = make(cell, 5, 7, bidirectional=True)
    p = problem(layer, T, B)
    p.x[2] = np.nan
    p.dy[2] = np.nan
    reset = mask(2, 3)
    found = run(layer, p, reset=reset)
    others = [t for t in range(T) if t != 2]
    assert np.isnan(found.y[2]).all()
    assert np.isfinite(found.y[others]).all()
    assert np.isfinite(found.dx[others]).all()
