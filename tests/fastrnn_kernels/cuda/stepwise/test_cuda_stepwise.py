"""Blocks of steps that are recorded and replayed, on Numba's simulator."""

import numpy as np
import pytest
from numba import config

from cases import CELLS, as_state, assert_close, expected, make, problem, run, states
from gradients import check

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

if config.ENABLE_CUDASIM:
    from fastrnn_kernels.cuda import choice
    from fastrnn_kernels.cuda.launch import graph, recent
    from fastrnn_kernels.cuda.resident import division
    from fastrnn_kernels.cuda.stepwise import path

#: Calls until a recording is replayed: one to warm up, one to record it.
WARM = 2


@pytest.fixture(autouse=True)
def step_by_step(monkeypatch):
    monkeypatch.setattr(choice, "gpu", lambda: division.Gpu(2, 0))  # where no R fits
    monkeypatch.setattr(path, "MOST_STEPS", 3)


def layer_of(cell, H=4, **options):
    return make(cell, 3, H, dtype="float64", device="cuda", **options)


def found(layer):
    return list(layer._version.weights[0].recent._kept.values())


@pytest.mark.parametrize(
    ("T", "wanted"), [(0, (0, 0)), (1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (7, (3, 3)), (9, (3, 3))]
)
def test_replays_are_of_a_size_and_cover_all_steps(T, wanted):
    assert path.divided(T) == wanted


@pytest.mark.parametrize("cell", CELLS)
def test_replays_take_other_arrays_lengths_and_numbers_of_steps(cell):
    layer = layer_of(cell, bidirectional=True)
    for seed, T in enumerate((7, 7, 8, 9, 8)):  # three replays of three steps each
        p = problem(layer, T, 2, seed=seed)
        lengths = np.array([T, seed])
        y, final = layer(p.x, as_state(p.state), lengths=lengths)
        wanted, wanted_final, _ = expected(cell, layer, p, lengths=lengths)
        # The functions of plain Python round as the reference's do; sums in another order.
        assert_close(y, wanted, 1e-12, "y")
        for mine, its in zip(states(final), wanted_final, strict=True):
            assert_close(mine, its, 1e-12, "state")
    (recorded,) = found(layer)
    assert recorded.graph.recorded


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}])
def test_gradients_of_replays(options):
    layer = layer_of("LSTM", **options)
    p = problem(layer, 7, 2, seed=3)
    for _ in range(WARM):
        run(layer, p)
    check("LSTM", layer, p)
    assert [recorded.graph.recorded for recorded in found(layer)] == [True, True]


def test_a_replay_has_the_bits_of_the_first_run():
    layer = layer_of("GRU-reset-before")
    p, other = problem(layer, 7, 3, seed=1), problem(layer, 7, 3, seed=2)
    first = run(layer, p).arrays()
    for _ in range(WARM):
        run(layer, other)
    for name, array in run(layer, p).arrays().items():
        np.testing.assert_array_equal(array, first[name], err_msg=name)


def test_where_recording_is_refused_the_calls_are_made_one_by_one(monkeypatch):
    def refuse(calls):
        raise RuntimeError("not here")

    monkeypatch.setattr(graph, "_listed", refuse)
    layer = layer_of("LSTM")
    p = problem(layer, 4, 2)
    wanted, _, _ = expected("LSTM", layer, p)
    for _ in range(3):
        assert_close(layer(p.x, as_state(p.state))[0], wanted, 1e-12, "y")
    (recorded,) = found(layer)
    assert str(recorded.graph.refusal) == "not here"
    assert not recorded.graph.recorded


def test_recordings_are_kept_up_to_a_number_and_dropped_with_the_weights():
    layer = layer_of("RNN-tanh", H=1)
    for B in range(1, recent.KEPT + 3):
        layer(np.zeros((1, B, 3)))
    assert len(found(layer)) == recent.KEPT
    assert {recorded.shape.B for recorded in found(layer)} == set(range(3, recent.KEPT + 3))
    layer.update(layer.state_dict())
    assert not found(layer)


def test_recordings_are_kept_up_to_so_many_bytes(monkeypatch):
    layer = layer_of("LSTM")
    layer(np.zeros((2, 3, 3)))
    (recorded,) = found(layer)
    # h, c, full_h, inner and new_h of 3 rows of 4 units, and four sums.
    assert recorded.nbytes == 8 * 3 * 4 * (5 + 4)
    monkeypatch.setattr(recent, "KEPT_BYTES", 2 * recorded.nbytes)
    for B in (3, 2, 1, 4):
        layer(np.zeros((2, B, 3)))
    assert [recorded.shape.B for recorded in found(layer)] == [1, 4]
    layer(np.zeros((2, 50, 3)))
    assert [recorded.shape.B for recorded in found(layer)] == [50]


def test_a_strided_array_does_not_reach_a_kernel():
    from fastrnn_kernels.cuda.launch.launch import flat_view

    with pytest.raises(ValueError, match="strides"):
        flat_view(np.zeros((2, 3)).T)
