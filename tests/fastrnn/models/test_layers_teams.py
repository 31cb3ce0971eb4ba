"""Threads that split the units and meet at every step give the bits of one thread."""

import numpy as np
import pytest

import fastrnn
from cases import CELLS, DTYPES, as_state, assert_same_bits, make, problem, run
from fastrnn_kernels.cpu.sequence import plan
from fastrnn_kernels.cpu.threads import board, pool
from fastrnn_kernels.cpu.threads.job import MEMBERS, WORDS


@pytest.fixture
def teams(monkeypatch, many_cpus):
    """Sets the members of teams, which then take any work, however little."""
    monkeypatch.setattr(pool, "MIN_WORK", 1)
    monkeypatch.setattr(pool, "WAKING_WORK", 1)
    monkeypatch.setattr(plan, "MIN_STEP_WORK", 0)
    monkeypatch.setattr(plan, "FEW_ROWS", 1 << 30)
    joined = []
    begin = board.begin

    def counted(words, number, records, helpers):
        asleep = begin(words, number, records, helpers)
        joined.append(int(records[MEMBERS::WORDS].sum()))
        return asleep

    counted.compile = begin.compile  # what the pool does before it first calls it
    monkeypatch.setattr(board, "begin", counted)
    before = fastrnn.get_num_threads()
    yield fastrnn.set_num_threads, joined
    fastrnn.set_num_threads(before)


def arguments(T, B):
    rng = np.random.default_rng(T)
    lengths = rng.integers(0, T + 1, B)
    return [{}, {"lengths": lengths}, {"lengths": lengths, "reset": rng.random((T, B)) < 0.2}]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(7, 1, 3, 65), (5, 9, 20, 130), (3, 2, 1, 1)])
def test_teams(cell, dtype, sizes, teams):
    T, B, I, H = sizes
    set_threads, joined = teams
    layer = make(cell, I, H, bidirectional=True, dtype=dtype)
    p = problem(layer, T, B)
    for given in arguments(T, B):
        set_threads(1)
        one = run(layer, p, **given)
        inferred, _ = layer(p.x, as_state(p.state), **given)
        for members in (2, 3, 5):
            set_threads(2 * members)  # a team for each direction
            assert_same_bits(run(layer, p, **given), one)
            assert np.array_equal(layer(p.x, as_state(p.state), **given)[0], inferred)
            assert 2 * members in joined, "no team came together"


@pytest.mark.parametrize("proj_size", [1, 70, 130])
def test_teams_with_a_projection(proj_size, teams):
    set_threads, joined = teams
    layer = make("LSTM", 5, 131, 2, proj_size=proj_size)
    p = problem(layer, 6, 4)
    for given in arguments(6, 4):
        set_threads(1)
        one = run(layer, p, **given)
        for members in (2, 3):
            set_threads(members)
            assert_same_bits(run(layer, p, **given), one)
            assert members in joined


@pytest.mark.parametrize("cell", CELLS)
def test_teams_in_bfloat16(cell, teams):
    set_threads, joined = teams
    layer = make(cell, 5, 131, 2, dtype="bfloat16")
    p = problem(layer, 6, 4)
    for given in arguments(6, 4):
        set_threads(1)
        one, _ = layer(p.x, as_state(p.state), **given)
        set_threads(3)
        assert np.array_equal(layer(p.x, as_state(p.state), **given)[0], one)
        assert 3 in joined


def test_large_weights_and_few_rows_make_a_team():
    """What the measured thresholds decide."""
    from fastrnn_kernels.rows import Rows

    def split(B, H, T=1000, kind=fastrnn.LSTM):
        weights = kind(8, H, seed=0)._version.weights[0]
        runs, members, _ = plan._split(Rows.whole(T, B), weights, 8 + H, 1)
        return runs, members

    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    try:
        assert split(1, 256) == ([(0, 1)], 2)
        assert split(64, 256) == ([(0, 64)], 2)
        assert split(64, 128) == ([(0, 32), (32, 64)], 1)
        assert split(1, 16) == ([(0, 1)], 1)
        # whose members wait for nobody, so that few units are enough
        assert split(1, 64, kind=fastrnn.cells.MinGRU) == ([(0, 1)], 2)
        assert split(64, 512, kind=fastrnn.cells.MinGRU) == ([(0, 32), (32, 64)], 1)
    finally:
        fastrnn.set_num_threads(before)
