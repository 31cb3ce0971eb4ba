"""What recipes find out from masks: as `Rows` has it, and pieces that fit the room they have."""

import itertools

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu.sequence import masks, plan
from fastrnn_kernels.cpu.threads import pool
from fastrnn_kernels.cpu.threads.board import alone
from fastrnn_kernels.rows import Rows


def some_masks(B, T):
    draw = np.random.default_rng(B + T)
    ragged = np.arange(T) < draw.integers(0, T + 1, (B, 1))
    steep = np.arange(T) < np.where(np.arange(B) % 9 == 0, T, 1)[:, None]
    yield from (ragged, steep, draw.random((B, T)) < 0.5)
    yield from (np.ones((B, T), bool), np.zeros((B, T), bool))


def indices(*shape):
    return np.full(shape, -1, np.int64)


@pytest.mark.parametrize(("B", "T"), [(1, 1), (7, 5), (40, 9)])
def test_rows_of_a_mask(B, T):
    for mask in some_masks(B, T):
        wanted = Rows(T, B, mask.sum(axis=1))
        order, lengths, valid, given = indices(B), indices(B), indices(T), indices(B)
        found = order, lengths, valid, given, indices(T + 1)
        alone(masks.rows(1, False, mask, *found).record)
        at, many = indices(T * B), indices(1)
        alone(masks.running(1, False, given, T, at, many).record)
        for one, other in zip(found[:4], ("order", "lengths", "valid", "given"), strict=True):
            np.testing.assert_array_equal(one, getattr(wanted, other), other)
        np.testing.assert_array_equal(at[: many[0]], wanted.running)


@pytest.mark.parametrize(("B", "threads"), [(7, 2), (64, 2), (64, 7), (200, 3)])
def test_pieces_of_a_mask(B, threads, monkeypatch):
    """Every row is in one, within its room; two of them share the steps as well as rows can."""
    monkeypatch.setattr(pool, "MIN_WORK", 1)
    monkeypatch.setattr(plan, "MIN_STEP_WORK", 1 << 60)  # no teams
    T, weights, before = 20, fastrnn.LSTM(3, 65, seed=0)._version.weights[0], pool.get_num_threads()
    makers = plan.forward_plan, plan.backward_plan
    try:
        pool.set_num_threads(threads)
        made = [make(weights, Rows(T, B), 1, True) for make in makers]
        pool.set_num_threads(1)
        monkeypatch.setattr(plan, "MANY_ROWS", B)
        by_size = [[make(weights, Rows(T, m), 1) for m in range(B + 1)] for make in makers]
    finally:
        pool.set_num_threads(before)
    both = list(zip(made, by_size, strict=True))
    for (one, each), mask in itertools.product(both, some_masks(B, T)):
        rows, found = Rows(T, B, mask.sum(axis=1)), indices(*one.pieces.shape)
        how = T, one.most, one.row_bytes, found
        alone(masks.pieces(1, False, rows.lengths, one.pieces, *how).record)
        assert len(found) >= 2
        assert [row for a, b in found[:, :2] for row in range(a, b)] == list(range(B))
        assert (np.diff(found[:, :2]) <= one.most).all()
        np.testing.assert_array_equal(found[:, 3:], one.pieces[:, 3:])
        if len(found) == 2:
            half = rows.lengths[: found[0, 1]].sum()
            assert rows.steps / 2 <= half <= rows.steps / 2 + T
        scratch = np.diff([*found[:, 3], one.scratch_size])
        of_indices = np.diff([*found[:, 5], one.indices_size])
        for k, (first, last) in enumerate(found[:, :2]):
            wanted = each[last - first]
            assert wanted.scratch_size <= scratch[k]
            assert wanted.indices_size <= of_indices[k]
            if last > first and one.row_bytes:
                assert found[k, 2] == wanted.pieces[0, 2]
                assert found[k, 4] - found[k, 3] >= wanted.pieces[0, 4]
