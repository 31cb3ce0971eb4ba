"""Passes divided in all the ways there are, on Numba's simulator: each step by itself.

A step is held against the cell's equations in float64, from the h or the gradients of the step
next to it that the pass itself gave. Those are known to the last bit, so what tensor cores
round is rounded here alike, and no error grows from step to step.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

if config.ENABLE_CUDASIM:
    from cuda_grid import all_blocks_at_once
    from fastrnn_kernels.cells.gru import GRU
    from fastrnn_kernels.cells.lstm import LSTM
    from fastrnn_kernels.cells.rnn import RNN_TANH
    from fastrnn_kernels.cuda import choice, sequence
    from fastrnn_kernels.cuda.data import passes
    from fastrnn_kernels.cuda.data.weights import Weights
    from fastrnn_kernels.cuda.isa.rounding import rounded
    from fastrnn_kernels.cuda.resident import path
    from fastrnn_kernels.cuda.resident.division import Division
    from fastrnn_kernels.rows import Rows

    CELLS = {"RNN": RNN_TANH, "LSTM": LSTM, "GRU": GRU}

T, I, H = 3, 2, 11
TYPES = ["tf32", "bfloat16", "float16"]
#: Units of a block where blocks share them, rows of the batch, and how a pass is divided.
WAYS = {
    "step by step": (H, 2, {}),
    "a row to a block": (H, 2, {"parts": 2, "columns": 3}),
    "rows to a block, R in registers": (H, 5, {"rows": 4, "group": 2, "held": 99}),
    "R in registers and shared memory": (H, 2, {"parts": 2, "columns": 4, "held": 3}),
    "clusters": (4, 3, {"cluster": 3, "parts": 2, "columns": 2, "held": 1}),
    "clusters, rows to each": (6, 5, {"cluster": 2, "rows": 4, "group": 2, "held": 99}),
    "all blocks": (4, 3, {"rows": 2, "parts": 3, "columns": 2, "held": 1}),
    "all blocks, groups of rows": (6, 5, {"rows": 4, "group": 2, "parts": 2, "held": 99}),
    "tensor cores": (4, 9, {"rows": 16, "parts": 1, "held": 99}),
    "tensor cores, two warps, R in both": (6, 9, {"rows": 16, "parts": 2, "held": 1}),
    "tensor cores, tiles": (4, 19, {"rows": 16, "parts": 2, "held": 0}),
    "tensor cores, tiles at once": (4, 35, {"rows": 32, "parts": 1, "held": 2}),
}
CASES = [
    (way, compute)
    for way in WAYS
    for compute in (TYPES if "tensor" in way or "step" in way else [""])
]
#: Of float32: each step's sums of some 50 products, and equations of a few operations, whose
#: derivatives and values are of order 1.
TOLERANCE = 2e-6
#: Of a product over all steps, in float32 too.
OF_PRODUCTS = 5e-6


def division(cell, way, compute, backward):
    units, _, given = WAYS[way]
    given = {"group": 16} | given if compute else given
    made = Division(
        H, len(cell.gates), backward, 4, 3, units, blocks=-(-H // units),
        gridded=units < H and "cluster" not in given, compute=compute, **given,
    )  # fmt: skip
    if compute:
        made = made._replace(columns=-(-made.width // 8))
    return made._replace(held=min(made.held, made.fragments))


@pytest.fixture
def pass_of(monkeypatch):
    """Runs a way's forward and backward pass on fresh inputs; gives all that came of it."""

    def run(cell, way, compute, reverse=False, lengths=None, T=T):
        B = WAYS[way][1]

        def division_of(weights, B, backward):
            if way == "step by step":
                return None
            found = division(cell, way, compute, backward)
            tiles = -(-B // found.rows)
            return found if found.gridded else found._replace(blocks=tiles * found.cluster)

        monkeypatch.setattr(choice, "division_of", division_of)
        random = np.random.default_rng(5)
        G, N = len(cell.gates), len(cell.states)

        def normal(*shape):
            return random.standard_normal(shape).astype(np.float32)

        weights = Weights(
            cell, normal(G * H, I), normal(G * H, H) / 4, normal(G * H), normal(G * H), None,
            compute,
        )  # fmt: skip
        rows = Rows(T, B, lengths)
        g = SimpleNamespace(weights=weights, x=normal(T, B, I), start_h=normal(B, H))
        g.start_rest, g.dy = normal(N - 1, B, H), normal(T, B, H)
        g.d_final_h, g.d_final_rest = normal(B, H), normal(N - 1, B, H)
        g.y = np.full((T, B, H), np.nan, np.float32)
        g.final_h, g.final_rest = (
            np.full_like(g.start_h, np.nan),
            np.full_like(g.start_rest, np.nan),
        )
        plain = choice.run_backward

        def run_backward(given):
            plain(given)
            g.d_sums = given.d_sums

        monkeypatch.setattr(choice, "run_backward", run_backward)
        g.division = division_of(weights, B, False)
        with all_blocks_at_once():
            forward = sequence.start_forward(
                weights, g.x, g.start_h, g.start_rest, g.final_h, g.final_rest, rows, g.y, 0,
                reverse=reverse, taping=True,
            )  # fmt: skip
            sequence.run([forward.job], forward.work)
            g.tape = forward.tape
            backward = sequence.start_backward(g.tape, g.dy, 0, g.d_final_h, g.d_final_rest)
            sequence.run([backward.job], backward.work)
        g.gradients = backward.finish()
        return g

    return run


def close(found, wanted, tolerance, name):
    scale = max(1.0, float(np.max(np.abs(wanted), initial=0)))
    assert np.max(np.abs(found - wanted), initial=0) <= tolerance * scale, name


def as_multiplied(array, compute):
    return (rounded(np.ascontiguousarray(array), compute) if compute else array).astype(float)


def each(function, *groups):
    """A cell's function of every element of arrays, which are given and come in groups."""
    shape = groups[0][0].shape
    flat = [[np.asarray(one, float).reshape(-1) for one in group] for group in groups]
    found = [
        function(*(tuple(one[i] for one in group) for group in flat))
        for i in range(int(np.prod(shape)))
    ]
    return [
        [np.array([one[k][j] for one in found]).reshape(shape) for j in range(len(found[0][k]))]
        for k in range(2)
    ]


def by_sum(cell, matrix, gates):
    """Rows of weights of some gates, an array to each."""
    return [matrix[g * H : (g + 1) * H] for g in map(cell.gates.index, gates)]


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(("way", "compute"), CASES)
def test_each_step(pass_of, cell, way, compute):
    cell = CELLS[cell]
    g = pass_of(cell, way, compute)
    w, tape = g.weights, g.tape
    A, E = len(cell.apart), len(cell.gates)
    R = np.concatenate(by_sum(cell, as_multiplied(w.w_hh, compute), cell.h_gates))
    W = np.concatenate(by_sum(cell, as_multiplied(w.w_ih, compute), cell.x_gates))
    apart = np.repeat([gate in cell.apart for gate in cell.gates], H)
    bias = np.concatenate(by_sum(cell, np.where(apart, w.b_ih, w.b_ih + w.b_hh), cell.x_gates))
    h_bias = np.concatenate([w.b_hh[:0], *by_sum(cell, w.b_hh, cell.apart)])
    h, rest = g.start_h, g.start_rest
    for t in range(T):
        x_part = as_multiplied(g.x[t], compute) @ W.T + bias
        sums = np.concatenate([x_part, np.tile(h_bias, (len(h), 1))], axis=1)
        sums[:, A * H :] += as_multiplied(h, compute) @ R.T
        split = np.split(sums, len(cell.sums), axis=1)
        new, saved = each(cell.forward, split, [h, *rest])
        close(g.y[t], new[0], TOLERANCE, f"y at {t}")
        np.testing.assert_array_equal(tape.old_h[t], h)
        np.testing.assert_array_equal(tape.old_rest[:, t], rest)
        for k, value in enumerate(saved):
            close(tape.saved[t, :, k], value, TOLERANCE, cell.saved[k])
        h = g.y[t]
        rest = tape.old_rest[:, t + 1] if t + 1 < T else g.final_rest
        close(rest, np.stack(new[1:]) if len(new) > 1 else rest, TOLERANCE, "rest")
    np.testing.assert_array_equal(g.final_h, h)

    own, rest = g.d_final_h.astype(float), list(g.d_final_rest)
    d_sums = [None] * T
    for t in range(T - 1, -1, -1):
        saved = list(tape.saved[t].transpose(1, 0, 2))
        states = [tape.old_h[t], *tape.old_rest[:, t]]
        d_sums[t], d_old = each(cell.backward, [own + g.dy[t], *rest], saved, states)
        found = g.d_sums[t]
        for s, wanted in enumerate(d_sums[t]):
            close(found[:, s], wanted, 4 * TOLERANCE, f"d{cell.sums[s]} at {t}")
        through = found[:, A:].reshape(-1, E * H)
        own = d_old[0] + as_multiplied(through, compute) @ R
        rest = d_old[1:]
    close(g.gradients.start_h, own, 4 * TOLERANCE, "dh")
    for mine, wanted in zip(g.gradients.start_rest, rest, strict=True):
        close(mine, wanted, 4 * TOLERANCE, "rest")

    sums = as_multiplied(g.d_sums.reshape(T * len(h), -1), compute)
    x_sums, h_sums = sums[:, : E * H], sums[:, A * H :]
    close(g.gradients.x.reshape(-1, I), x_sums @ W, OF_PRODUCTS, "dx")
    for name, rows, gates, operand in (
        ("w_ih", x_sums, cell.x_gates, g.x), ("w_hh", h_sums, cell.h_gates, tape.old_h),
    ):  # fmt: skip
        wanted = rows.T @ as_multiplied(operand.reshape(T * len(h), -1), compute)
        wanted = np.concatenate(by_sum(SimpleNamespace(gates=gates), wanted, cell.gates))
        close(getattr(g.gradients, name), wanted, OF_PRODUCTS, name)


@pytest.mark.parametrize("way", ["clusters", "all blocks", "a row to a block"])
@pytest.mark.parametrize("steps", [0, T])
def test_no_step_at_all(pass_of, monkeypatch, way, steps):
    """A cluster's blocks do not leave while others write to them; nothing needs to be launched."""
    launched = []
    plain = path.launch_blocks

    def launch_blocks(*given, **how):
        launched.append(given[0].name)
        plain(*given, **how)

    monkeypatch.setattr(path, "launch_blocks", launch_blocks)
    lengths = np.zeros(WAYS[way][1], np.int64)
    g = pass_of(LSTM, way, "", lengths=lengths, T=steps)
    assert launched == ["backward_kernel.run"]
    assert g.y.shape[0] == steps
    assert not g.y.any()
    for found, wanted in (
        (g.final_h, g.start_h), (g.final_rest, g.start_rest),
        (g.gradients.start_h, g.d_final_h), (g.gradients.start_rest, g.d_final_rest),
    ):  # fmt: skip
        np.testing.assert_array_equal(found, wanted)
    assert not g.gradients.w_hh.any()
    # The kernel by itself, as it would be launched.
    given = passes.ForwardArguments(
        g.weights, g.x, g.start_h, g.start_rest, g.final_h, g.final_rest, g.tape.rows, g.y, 0,
        False, None, None,
    )  # fmt: skip
    with all_blocks_at_once():
        path.forward(given, division=g.division)
    np.testing.assert_array_equal(g.final_h, g.start_h)
