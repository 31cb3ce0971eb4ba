"""Equal to the last bit: any batch, any number of threads, any number of backward passes."""

import numpy as np
import pytest

import fastrnn
from cases import (
    CELLS,
    DTYPES,
    Problem,
    as_state,
    assert_same_bits,
    make,
    problem,
    run,
    states,
)


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back after the test."""
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads
    fastrnn.set_num_threads(before)


def rows_of(p, rows):
    """The same problem for some of the rows."""
    return Problem(
        p.x[:, rows],
        tuple(s[:, rows] for s in p.state),
        p.dy[:, rows],
        tuple(d[:, rows] for d in p.dstate),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("I", "H"), [(5, 7), (16, 64), (3, 65)])
def test_a_row_does_not_depend_on_the_batch(cell, dtype, I, H):
    """Blocks hold several rows; which ones must not show, nor in which of them a row is."""
    layer = make(cell, I, H, bidirectional=True, dtype=dtype)
    p = problem(layer, 5, 17)
    whole = run(layer, p)
    inferred, _ = layer(p.x, as_state(p.state))
    assert np.array_equal(inferred, whole.y)
    for rows in ([0], [16], [3, 11], [16, 2, 9], list(range(1, 14)), [5] * 6):
        part = run(layer, rows_of(p, rows))
        assert np.array_equal(part.y, whole.y[:, rows])
        assert np.array_equal(part.dx, whole.dx[:, rows])
        wanted = (*whole.state, *whole.dstate)
        for mine, its in zip((*part.state, *part.dstate), wanted, strict=True):
            assert np.array_equal(mine, its[:, rows])
        inferred, _ = layer(p.x[:, rows], as_state([s[:, rows] for s in p.state]))
        assert np.array_equal(inferred, part.y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_of_a_projected_or_plain_stack_does_not_depend_on_the_batch(cell, dtype):
    options = {"proj_size": 9} if cell == "LSTM" else {}
    layer = make(cell, 5, 33, 2, dtype=dtype, **options)
    p = problem(layer, 4, 11)
    whole = run(layer, p)
    for rows in ([10], [4, 0], [7, 8, 9, 1, 2]):
        part = run(layer, rows_of(p, rows))
        assert np.array_equal(part.y, whole.y[:, rows])
        assert np.array_equal(part.dx, whole.dx[:, rows])


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_may_be_cut_anywhere(cell):
    """The state carried over gives the bits of the whole."""
    layer = make(cell, 5, 33, 2)
    p = problem(layer, 23, 3)
    whole, _ = layer(p.x, as_state(p.state))
    state, at = as_state(p.state), 0
    for steps in (1, 7, 2, 13):
        y, state = layer(p.x[at : at + steps], state)
        assert np.array_equal(y, whole[at : at + steps])
        at += steps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(20, 32, 64, 128), (99, 1, 128, 256), (100, 13, 3, 65)])
def test_threads(cell, dtype, sizes, threads):
    """T, B, I, H: at least four million multiply-adds each: by rows, by columns, and unevenly."""
    T, B, I, H = sizes
    layer = make(cell, I, H, dtype=dtype)
    p = problem(layer, T, B)
    lengths = np.random.default_rng(0).integers(0, T + 1, B)
    threads(1)
    one, one_ragged = run(layer, p), run(layer, p, lengths=lengths)
    inferred, _ = layer(p.x, as_state(p.state))
    assert np.array_equal(inferred, one.y)
    threads(2)
    assert_same_bits(run(layer, p), one)
    assert_same_bits(run(layer, p, lengths=lengths), one_ragged)
    assert np.array_equal(layer(p.x, as_state(p.state))[0], inferred)


def test_threads_in_a_stack_both_ways(threads):
    layer = make("LSTM", 40, 64, 2, bidirectional=True, proj_size=24)
    p = problem(layer, 20, 16)
    threads(1)
    one = run(layer, p)
    threads(2)
    assert_same_bits(run(layer, p), one)


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_call_twice(cell):
    layer = make(cell, 5, 65, 2, bidirectional=True)
    p = problem(layer, 6, 5)
    assert_same_bits(run(layer, p), run(layer, p))


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_tape_twice(cell):
    """The backward pass reads the tape and leaves it as it was."""
    layer = make(cell, 5, 17, 2, bidirectional=True)
    p = problem(layer, 6, 5)
    arguments = {"lengths": np.array([3, 6, 0, 1, 5])}
    _, _, tape = layer.forward(p.x, as_state(p.state), **arguments)
    first = layer.backward(tape, p.dy, as_state(p.dstate))
    layer.backward(tape, 2 * p.dy)
    second = layer.backward(tape, p.dy, as_state(p.dstate))
    assert np.array_equal(first.x, second.x)
    for name, gradient in first.parameters.items():
        assert np.array_equal(gradient, second.parameters[name]), name


@pytest.mark.parametrize("cell", CELLS)
def test_a_tape_outlives_later_calls(cell):
    """No buffer is shared between the tapes, outputs and gradients of two calls."""
    layer = make(cell, 5, 17, 2)
    p, other = problem(layer, 6, 5, seed=1), problem(layer, 6, 5, seed=2)
    wanted = run(layer, p)
    y, state, tape = layer.forward(p.x, as_state(p.state))
    run(layer, other)
    layer(other.x)
    gradients = layer.backward(tape, p.dy, as_state(p.dstate))
    kept = {name: gradient.copy() for name, gradient in gradients.parameters.items()}
    run(layer, other)
    assert np.array_equal(y, wanted.y)
    assert np.array_equal(state[0] if len(p.state) > 1 else state, wanted.state[0])
    assert np.array_equal(gradients.x, wanted.dx)
    for name, gradient in wanted.parameters.items():
        assert np.array_equal(gradients.parameters[name], gradient), name
        assert np.array_equal(kept[name], gradient), name


@pytest.mark.parametrize("cell", CELLS)
def test_the_tape_owns_what_it_keeps(cell):
    """`y -= target`, or the next batch in the buffer of x, between forward and backward."""
    options = {"proj_size": 3} if cell == "LSTM" else {}
    layer = make(cell, 5, 17, 2, bidirectional=True, **options)
    p = problem(layer, 6, 5)
    wanted = run(layer, p)
    y, state, tape = layer.forward(p.x, as_state(p.state))
    for array in (y, *states(state), p.x, *p.state):
        array[:] = np.nan
    found = layer.backward(tape, p.dy, as_state(p.dstate))
    assert np.array_equal(found.x, wanted.dx)
    for name, gradient in wanted.parameters.items():
        assert np.array_equal(found.parameters[name], gradient), name


@pytest.mark.parametrize("cell", CELLS)
def test_return_gates_changes_no_gradient(cell):
    layer = make(cell, 5, 17, 2, bidirectional=True)
    p = problem(layer, 6, 5)
    assert_same_bits(run(layer, p, return_gates=True), run(layer, p))
