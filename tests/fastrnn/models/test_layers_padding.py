"""Padding: whatever lies beyond a sequence's end is neither read nor given a gradient."""

import numpy as np
import pytest

from cases import (
    CELLS,
    DTYPES,
    TOLERANCE,
    Problem,
    as_state,
    assert_results_close,
    assert_same_bits,
    make,
    problem,
    run,
    states,
)

T, LENGTHS = 6, np.array([3, 0, 6, 1, 5])
PADDING = np.arange(T)[:, None] >= LENGTHS  # (T, B)


def layer_of(cell, **options):
    return make(cell, 5, 7, 2, bidirectional=True, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poison_at_padding_changes_nothing(cell, dtype, poison):
    layer = layer_of(cell, dtype=dtype)
    p = problem(layer, T, len(LENGTHS))
    wanted = run(layer, p, lengths=LENGTHS)
    p.x[PADDING] = poison
    p.dy[PADDING] = poison
    found = run(layer, p, lengths=LENGTHS)
    assert_same_bits(found, wanted)
    assert np.isfinite(found.parameters["weight_hh_l0"]).all()
    assert not found.y[PADDING].any()
    assert not found.dx[PADDING].any()
    assert np.array_equal(layer(p.x, as_state(p.state), lengths=LENGTHS)[0], wanted.y)


@pytest.mark.parametrize("cell", CELLS)
def test_poison_at_padding_batch_first_and_projected(cell):
    options = {"proj_size": 3} if cell == "LSTM" else {}
    layer = layer_of(cell, batch_first=True, **options)
    p = problem(layer, T, len(LENGTHS)).swap()
    wanted = run(layer, p, lengths=LENGTHS)
    p.x[PADDING.T] = np.nan
    p.dy[PADDING.T] = np.nan
    found = run(layer, p, lengths=LENGTHS)
    assert_same_bits(found, wanted)
    assert not found.dx[PADDING.T].any()


@pytest.mark.smoke
@pytest.mark.parametrize("cell", CELLS)
def test_a_padded_row_equals_the_row_alone(cell):
    """Bit for bit: output, final state and the gradients that belong to the row."""
    layer = layer_of(cell)
    p = problem(layer, T, len(LENGTHS))
    whole = run(layer, p, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS):
        rows, steps = slice(b, b + 1), slice(length)
        alone = run(
            layer,
            Problem(
                p.x[steps, rows],
                tuple(s[:, rows] for s in p.state),
                p.dy[steps, rows],
                tuple(d[:, rows] for d in p.dstate),
            ),
        )
        assert np.array_equal(whole.y[steps, rows], alone.y)
        assert np.array_equal(whole.dx[steps, rows], alone.dx)
        for mine, its in zip(whole.state + whole.dstate, alone.state + alone.dstate, strict=True):
            assert np.array_equal(mine[:, rows], its)


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_of_length_0_hands_its_state_through(cell):
    layer = layer_of(cell)
    p = problem(layer, T, len(LENGTHS))
    found = run(layer, p, lengths=LENGTHS)
    for final, initial in zip(found.state, p.state, strict=True):
        assert np.array_equal(final[:, 1], initial[:, 1])
    for gradient, arriving in zip(found.dstate, p.dstate, strict=True):
        assert np.array_equal(gradient[:, 1], arriving[:, 1])


@pytest.mark.parametrize("cell", CELLS)
def test_all_sequences_of_length_0(cell):
    layer = layer_of(cell)
    p = problem(layer, T, 5)
    p.x[:], p.dy[:] = np.nan, np.nan
    found = run(layer, p, lengths=np.zeros(5, int))
    assert not found.y.any()
    assert not found.dx.any()
    for mine, its in zip(found.state + found.dstate, p.state + p.dstate, strict=True):
        assert np.array_equal(mine, its)
    for name, gradient in found.parameters.items():
        assert not gradient.any(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_full_lengths_equal_no_lengths(cell, dtype):
    layer = layer_of(cell, dtype=dtype)
    p = problem(layer, T, 5)
    found = run(layer, p, lengths=np.full(5, T))
    assert_results_close(found, run(layer, p), TOLERANCE[dtype])
    assert np.array_equal(found.y, run(layer, p).y)


@pytest.mark.parametrize("cell", CELLS)
def test_the_order_of_the_rows_does_not_matter(cell):
    layer = layer_of(cell)
    p = problem(layer, T, len(LENGTHS))
    order = np.argsort(-LENGTHS)
    y, state = layer(p.x, as_state(p.state), lengths=LENGTHS)
    initial = as_state([s[:, order] for s in p.state])
    sorted_y, sorted_state = layer(p.x[:, order], initial, lengths=LENGTHS[order])
    assert np.array_equal(sorted_y, y[:, order])
    for mine, its in zip(states(sorted_state), states(state), strict=True):
        assert np.array_equal(mine, its[:, order])


@pytest.mark.parametrize("cell", CELLS)
def test_a_single_sequence_may_have_a_length(cell):
    layer = layer_of(cell)
    p = problem(layer, T, 1)
    wanted, _ = layer(p.x[:4, 0])
    for lengths in (np.array([4]), 4):
        y, _ = layer(p.x[:, 0], lengths=lengths)
        assert np.array_equal(y[:4], wanted)
        assert not y[4:].any()
