"""Any layout in memory is accepted, gives the same bits, and is left as it was."""

import numpy as np
import pytest

from cases import CELLS, Problem, as_state, assert_same_bits, make, problem, run


def reversed_in_memory(a):
    flip = tuple(slice(None, None, -1) for _ in a.shape)
    return np.ascontiguousarray(a[flip])[flip]


def sliced(a):
    fill = np.nan if a.dtype.kind == "f" else 1
    wide = np.full([2 * n + 1 for n in a.shape], fill, a.dtype)
    inner = tuple(slice(1, None, 2) for _ in a.shape)
    wide[inner] = a
    return wide[inner]


def permuted(a):
    return np.ascontiguousarray(a.transpose()).transpose()


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = memory.view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned or a.itemsize == 1
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS = [reversed_in_memory, sliced, permuted, np.asfortranarray, unaligned, read_only]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts(cell, layout, dtype):
    layer = make(cell, 5, 7, 2, bidirectional=True, dtype=dtype)
    p = problem(layer, 4, 3)
    lengths = np.array([3, 0, 4])
    reset = np.random.default_rng(0).random((4, 3)) < 0.3
    wanted = run(layer, p, lengths=lengths, reset=reset)
    other = Problem(
        layout(p.x),
        tuple(layout(s) for s in p.state),
        layout(p.dy),
        tuple(layout(d) for d in p.dstate),
    )
    found = run(layer, other, lengths=layout(lengths), reset=layout(reset))
    assert_same_bits(found, wanted)
    inferred, _ = layer(other.x, as_state(other.state), lengths=layout(lengths), reset=reset)
    assert np.array_equal(inferred, wanted.y)


def test_broadcast_input_and_gradient():
    """Strides of 0: one step's row for all steps and rows."""
    layer = make("LSTM", 5, 7)
    p = problem(layer, 4, 3)
    p.x, p.dy = (np.broadcast_to(a[:1, :1], a.shape) for a in (p.x, p.dy))
    dense = Problem(p.x.copy(), p.state, p.dy.copy(), p.dstate)
    assert_same_bits(run(layer, p), run(layer, dense))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_arguments_are_left_as_they_were(cell, batch_first):
    layer = make(cell, 5, 7, 2, bidirectional=True, batch_first=batch_first)
    p = problem(layer, 4, 3)
    p = p.swap() if batch_first else p
    lengths = np.array([3, 0, 4])
    reset = np.random.default_rng(0).random(p.x.shape[:2]) < 0.3
    arguments = [p.x, *p.state, p.dy, *p.dstate, lengths, reset]
    before = [a.copy() for a in arguments]
    layer(p.x, as_state(p.state), lengths=lengths, reset=reset)
    run(layer, p, lengths=lengths, reset=reset)
    for mine, its in zip(arguments, before, strict=True):
        assert np.array_equal(mine, its)


@pytest.mark.parametrize("cell", CELLS)
def test_results_share_no_memory(cell):
    """Whoever writes to a result changes no other result and no argument."""
    layer = make(cell, 5, 7, 2, bidirectional=True)
    p = problem(layer, 4, 3)
    first, second = run(layer, p), run(layer, p)
    given = [p.x, *p.state, p.dy, *p.dstate, *layer.parameters.values()]
    for name, array in first.arrays().items():
        assert array.flags.writeable, name
        others = [a for key, a in first.arrays().items() if key != name]
        for other in [*others, *second.arrays().values(), *given]:
            assert not np.shares_memory(array, other), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_swapped_bytes_raise(dtype):
    layer = make("LSTM", 5, 7, dtype=dtype)
    p = problem(layer, 4, 3)
    swapped = p.x.astype(p.x.dtype.newbyteorder())
    with pytest.raises(TypeError, match="input"):
        layer(swapped)
    state = tuple(s.astype(s.dtype.newbyteorder()) for s in p.state)
    with pytest.raises(TypeError, match="state"):
        layer(p.x, state)
    _, _, tape = layer.forward(p.x)
    with pytest.raises(TypeError, match="dy"):
        layer.backward(tape, p.dy.astype(p.dy.dtype.newbyteorder()))
