"""How passes are divided: every row in one piece, and scratch whose parts do not overlap."""

import itertools

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu.sequence import plan
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.rows import Rows

LINE = 16


@pytest.mark.parametrize("values", [1, 2])
@pytest.mark.parametrize(("projected", "late"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(("rows", "states"), [(1, 1), (3, 2), (7, 4)])
def test_parts_of_a_forward_pass(rows, states, projected, late, values):
    HU, PU = 48, 64
    ends = plan.shared_layout(rows, states, HU, PU, values, projected, late, LINE)
    wanted = [2 * rows * PU, (states - 1) * rows * HU]
    wanted += [rows * PU if values > 1 else 0]
    wanted += [rows * HU // values if there else 0 for there in (projected, late)]
    sizes = np.diff([0, *ends])
    assert (sizes >= wanted).all()
    assert (sizes < np.array(wanted) + LINE).all()
    assert not np.any(np.array(ends) % LINE)


@pytest.mark.smoke
@pytest.mark.parametrize("lengths", [None, [9, 0, 3, 3, 1, 9, 2]])
@pytest.mark.parametrize(("H", "many"), [(5, 1), (65, 3), (300, 2), (300, 7)])
def test_pieces(H, many, lengths, monkeypatch):
    """In order, each behind the scratch of the one before it, and every row in one of them."""
    monkeypatch.setattr(pool, "MIN_WORK", 1)
    weights = fastrnn.LSTM(3, H, seed=0)._version.weights[0]
    before = pool.get_num_threads()
    pool.set_num_threads(many)
    try:
        for make in (plan.forward_plan, plan.backward_plan):
            made = make(weights, Rows(9, 7, None if lengths is None else np.array(lengths)), 1)
            rows = [row for first, last, *_ in made.pieces for row in range(first, last)]
            assert rows == list(range(7))
            assert made.count == (len(made.pieces) if not made.team else many)
            for first, last, _, shared_at, own_at, _ in made.pieces:
                assert own_at - shared_at >= (last - first) * H
            at = [*made.pieces[:, 3], made.scratch_size]
            assert all(here < following for here, following in itertools.pairwise(at))
            scratch, indices = made.scratch()
            assert scratch.nbytes + indices.nbytes <= made.bytes + plan.CACHE_LINE
    finally:
        pool.set_num_threads(before)


def test_plans_of_whole_batches_are_kept_and_no_more_than_a_few():
    layer = fastrnn.GRU(2, 3, seed=0)
    for T in range(1, 300):
        layer(np.zeros((T, 2, 2), np.float32))
        assert 1 <= len(plan._plans) <= plan._MOST_KEPT
    kept = dict(plan._plans)
    layer.update({"bias_ih_l0": np.ones(9, np.float32)})  # of new weights, too
    layer(np.zeros((299, 2, 2), np.float32))
    assert plan._plans == kept


def test_scratch_does_not_grow_with_time():
    layer = fastrnn.LSTM(8, 96, bidirectional=True, seed=0)
    before = pool.get_num_threads()
    try:
        for many in (1, 2):
            pool.set_num_threads(many)
            found = [layer.scratch_bytes(T, 4) for T in (1, 100, 10_000, 1_000_000)]
            assert 0 < found[0] < found[1] <= found[2] == found[3]
            states = 2 * 8 * 4 * (3 * 96 + 64) * many
            assert found[3] < 2 * many * 2 * plan.SUMS_BYTES + states + 200_000
    finally:
        pool.set_num_threads(before)
    with pytest.raises(ValueError, match="T is -1"):
        layer.scratch_bytes(-1, 4)
