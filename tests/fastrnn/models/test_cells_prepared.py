"""Steps of little work are prepared when a shape comes again: the same bits, nothing stale."""

import threading

import numpy as np
import pytest

import fastrnn
from fastrnn.models.cells import RecurrentCell

I, H, B = 5, 6, 3
KINDS = ["LSTMCell", "GRUCell", "RNNCell"]


def states(kind, *shape):
    drawn = [np.random.default_rng(n).standard_normal((*shape, H), np.float32) for n in (1, 2)]
    return tuple(drawn) if kind == "LSTMCell" else drawn[0]


def same(found, wanted):
    both = (found,) if isinstance(found, np.ndarray) else found
    others = (wanted,) if isinstance(wanted, np.ndarray) else wanted
    pairs = zip(both, others, strict=True)
    return all(a.shape == b.shape and np.array_equal(a, b) for a, b in pairs)


def drawn(*shape):
    return np.random.default_rng(0).standard_normal((*shape, I), np.float32)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("shape", [(), (1,), (B,)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits(monkeypatch, kind, shape, options):
    cell, x = getattr(fastrnn, kind)(I, H, seed=0, **options), drawn(*shape)
    for state in (None, states(kind, *shape)):
        wanted = cell(x, state)
        cell(x, state)
        with monkeypatch.context() as patch:
            patch.setattr(RecurrentCell, "_step", None)
            found = cell(x, state)
        assert same(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_seen(kind):
    cell, x = getattr(fastrnn, kind)(I, H, seed=0), drawn(B)
    for _ in range(3):
        before = cell(x)
    cell.update({"weight_ih": cell.parameters["weight_ih"] * 2})
    other = getattr(fastrnn, kind)(I, H, seed=1)
    other.load_state_dict(cell.state_dict())
    wanted = other(x)
    for _ in range(3):
        assert same(cell(x), wanted)
    assert not same(wanted, before)


def test_arrays_that_lie_in_another_way_and_those_that_nobody_may_write():
    cell, x, state = fastrnn.LSTMCell(I, H, seed=0), drawn(B), states("LSTMCell", B)
    wanted = cell(x, state)
    cell(x, state)
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    locked = x.copy()
    locked.flags.writeable = False
    turned = tuple(np.asfortranarray(one) for one in state)
    for given in (wide, locked):
        assert same(cell(given, turned), wanted)
        assert same(cell(given, list(state)), wanted)


def test_results_are_new_arrays():
    cell, x = fastrnn.GRUCell(I, H, seed=0), drawn(B)
    first = [cell(x) for _ in range(4)]
    kept = first[3].copy()
    cell(2 * x)
    assert np.array_equal(first[3], kept)
    assert not np.shares_memory(first[2], first[3])


def test_what_does_not_fit_has_the_same_errors():
    cell = fastrnn.LSTMCell(I, H, seed=0)
    x, (h, c) = drawn(B), states("LSTMCell", B)
    for _ in range(3):
        cell(x, (h, c))
    for given, state, error, match in (
        (x.astype(np.float64), None, TypeError, "float"),
        (np.zeros((B, I + 1), np.float32), None, ValueError, "I=6"),
        (np.zeros((1, B, I), np.float32), None, ValueError, "shape"),
        (x, (h, c[:1]), ValueError, "shape"),
        (x, h, Exception, "state"),
    ):
        for _ in range(3):
            with pytest.raises(error, match=match):
                cell(given, state)


def test_threads_that_share_a_cell_have_their_own_results():
    cell, xs = fastrnn.LSTMCell(I, H, seed=0), [drawn(B) * k for k in range(1, 5)]
    wanted, wrong = [cell(x) for x in xs], []

    def call(k):
        wrong.extend(n for n in range(300) if not same(cell(xs[k]), wanted[k]))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


def test_few_shapes_are_kept():
    cell = fastrnn.RNNCell(I, H, seed=0)
    for rows in range(1, 60):
        for _ in range(3):
            cell(np.zeros((rows, I), np.float32))
    assert len(cell._version.small) <= 16
