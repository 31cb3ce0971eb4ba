"""A whole sequence through one direction of one layer, forward and backward.

`start_forward` and `start_backward` allocate what a pass needs and split its rows into
tasks; a caller may gather the tasks of both directions and run them together
(`threads.run`), then read the results.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cpu import products, threads
from fastrnn_kernels.cpu.backward import backward_kernel
from fastrnn_kernels.cpu.forward import forward_kernel
from fastrnn_kernels.cpu.tile import MAX_ROWS, VECTORS, vectors_per_gate
from fastrnn_kernels.cpu.weights import Array, Weights, aligned, lanes_of, scratch

Indices = NDArray[np.int64]

#: Bytes of the sums of a block of time steps: half of a usual second-level cache.
SUMS_BYTES = 1 << 18
#: Rows whose positions the gradient of x prepares at a time.
INPUT_GRADIENT_ROWS = MAX_ROWS * 16


class Rows:
    """The rows of a batch and their lengths, longest first.

    lengths (B,) or None, when all have T steps.
    """

    def __init__(self, T: int, B: int, lengths: Indices | None = None) -> None:
        self.T, self.B = T, B
        self.ragged = lengths is not None and bool((lengths < T).any())
        if lengths is None:
            lengths = np.full(B, T, np.int64)
        self.order: Indices = np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)
        self.lengths: Indices = np.ascontiguousarray(lengths[self.order], np.int64)
        #: how many rows still run at each step
        self.valid: Indices = np.searchsorted(-self.lengths, -np.arange(T)).astype(np.int64)
        self.steps = int(lengths.sum())
        self._given = lengths

    @cached_property
    def running(self) -> Indices:
        """Positions t * B + b of all steps that are not padding."""
        if not self.ragged:
            return np.arange(self.T * self.B, dtype=np.int64)
        return np.flatnonzero(np.arange(self.T)[:, None] < self._given).astype(np.int64)

    @staticmethod
    @lru_cache(maxsize=64)
    def whole(T: int, B: int) -> "Rows":
        """The rows of a batch whose sequences all have T steps."""
        return Rows(T, B)

    def split(self, parts: int) -> list[tuple[int, int]]:
        """Runs of positions with about the same number of steps each."""
        parts = max(1, min(parts, self.B))
        ends = np.cumsum(self.lengths)
        total = int(ends[-1]) if self.B else 0
        cuts = [int(np.searchsorted(ends, total * k / parts, "left")) + 1 for k in range(1, parts)]
        edges = [0, *(min(cut, self.B) for cut in cuts), self.B]
        return [(a, b) for a, b in pairwise(edges) if a < b] or [(0, self.B)]


@dataclass(frozen=True)
class Tape:
    """What the backward pass of one direction reads."""

    weights: Weights
    rows: Rows
    x: Array  # (T, B, I)
    reverse: bool
    reset: NDArray[np.bool_] | None  # (T, B)
    saved: Array  # (T, B, K, H)
    old_h: Array  # (T, B, P)
    old_rest: Array  # (states but h, T, B, H)
    inner: Array  # (T, B, H) or empty
    full_h: Array  # (T, B, H) or empty


@dataclass(frozen=True)
class Forward:
    """A forward pass: tasks to run, and its results, there once they have run."""

    tasks: list[threads.Task]
    work: float  # multiply-adds
    final_h: Array  # (B, P)
    final_rest: Array  # (states but h, B, H)
    tape: Tape | None


@dataclass(frozen=True)
class Gradients:
    """Gradients of one direction; of the weights in the cell's gate order."""

    x: Array
    start_h: Array
    start_rest: Array
    w_ih: Array
    w_hh: Array
    b_ih: Array
    b_hh: Array
    w_hr: Array | None


def _parts(work: float, share: int) -> int:
    """Tasks worth making of so many multiply-adds, of which `share` passes run together."""
    return int(max(1, min(threads.get_num_threads() // share, 2 * work // threads.MIN_WORK)))


def _flat(array: Array) -> Array:
    return array.reshape(-1)


def start_forward(
    weights: Weights,
    x: Array,
    start_h: Array,
    start_rest: Array,
    rows: Rows,
    y: Array,
    y_at: int,
    *,
    reverse: bool = False,
    reset: NDArray[np.bool_] | None = None,
    taping: bool = False,
    share: int = 1,
) -> Forward:
    """Prepare a forward pass.

    x (T, B, I) and y (T, B, Y) C-contiguous, y zeros where a row is padding; h goes to the
    columns of y from y_at on. start_h (B, P), start_rest (states but h, B, H).
    """
    cell, dtype = weights.cell, weights.dtype
    T, B, I, H, P = rows.T, rows.B, weights.input_size, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    G, S, K, N = len(cell.gates), len(cell.sums), len(cell.saved), len(cell.states)
    U = vectors_per_gate(cell) * lanes_of(dtype)
    blocks = -(-H // U)
    final_h, final_rest = np.empty((B, P), dtype), np.empty((N - 1, B, H), dtype)
    nothing = np.empty(0, dtype)
    tape = None
    if taping:
        tape = Tape(
            weights,
            rows,
            x,
            reverse,
            reset,
            saved=np.empty((T, B, K, H), dtype),
            old_h=np.empty((T, B, P), dtype),
            old_rest=np.empty((N - 1, T, B, H), dtype),
            inner=np.empty((T, B, H), dtype) if cell.late else nothing,
            full_h=np.empty((T, B, H), dtype) if projected else nothing,
        )
    kept = (
        (tape.saved, tape.old_h, tape.old_rest, tape.inner, tape.full_h) if tape else (nothing,) * 5
    )
    panels = weights.forward
    run = forward_kernel(cell)
    no_mask = np.empty(0, np.bool_)

    def task(first: int, last: int) -> threads.Task:
        many = last - first
        step_bytes = max(1, many * blocks * S * U * dtype.itemsize)
        steps = max(1, min(T, SUMS_BYTES // step_bytes))
        width = VECTORS * lanes_of(dtype)
        P4 = -(-P // width) * width if projected else P
        memory = scratch(
            [
                2 * many * P4,
                (N - 1) * many * H,
                many * H if projected else 0,
                many * H if cell.late else 0,
                steps * many * blocks * S * U,
                MAX_ROWS * (2 * N + S + K) * U,
            ],
            dtype,
        )
        positions = np.empty((steps + 2) * many, np.int64)
        x_at, h_at, u_at = positions[: -2 * many], positions[-2 * many : -many], positions[-many:]

        def work() -> None:
            run(
                _flat(x), _flat(y), no_mask if reset is None else _flat(reset),
                rows.order, rows.lengths, rows.valid,
                panels.x, panels.bias, panels.h, panels.h_bias, panels.late, panels.projection,
                _flat(start_h), _flat(start_rest), _flat(final_h), _flat(final_rest),
                *map(_flat, kept), *memory, x_at, h_at, u_at,
                T, B, I, H, P, y.shape[2], y_at, first, last, steps,
                reverse, reset is not None, projected, taping,
            )  # fmt: skip

        return work

    total = float(rows.steps) * G * H * (I + P)
    tasks = [task(first, last) for first, last in rows.split(_parts(total, share))]
    return Forward(tasks, total, final_h, final_rest, tape)


@dataclass(frozen=True)
class Backward:
    """A backward pass through time: tasks to run, then `finish` for the gradients."""

    tasks: list[threads.Task]
    work: float  # multiply-adds
    finish: Callable[[], Gradients]


def start_backward(
    tape: Tape, dy: Array, y_at: int, d_final_h: Array, d_final_rest: Array, *, share: int = 1
) -> Backward:
    """Prepare a backward pass: dy (T, B, Y) C-contiguous, read from column y_at on."""
    weights, rows = tape.weights, tape.rows
    cell, dtype = weights.cell, weights.dtype
    T, B, H, P = rows.T, rows.B, weights.hidden_size, weights.state_size
    projected = weights.w_hr is not None
    G, S, K, N = len(cell.gates), len(cell.sums), len(cell.saved), len(cell.states)
    lanes = lanes_of(dtype)
    width = VECTORS * lanes
    P4, H4 = (-(-size // width) * width for size in (P, H))
    d_sums = np.empty((T, B, S, H), dtype)
    d_start_h, d_start_rest = np.zeros((B, P), dtype), np.zeros((N - 1, B, H), dtype)
    dh_tape = np.empty((T, B, P) if projected else 0, dtype)
    panels = weights.backward
    run = backward_kernel(cell)
    reset = np.empty(0, np.bool_) if tape.reset is None else tape.reset

    def task(first: int, last: int) -> threads.Task:
        many = last - first
        memory = scratch(
            [
                many * P4,
                (N - 1) * many * H,
                many * H4 if projected else 0,
                many * H4 if cell.late else 0,
                (3 * N + K + 1 + S) * lanes,
            ],
            dtype,
        )
        row_at, dh_at = np.empty(many, np.int64), np.empty(many, np.int64)

        def work() -> None:
            run(
                _flat(dy), _flat(d_sums), _flat(reset), rows.order, rows.lengths, rows.valid,
                panels.h, panels.late, panels.projection,
                _flat(d_final_h), _flat(d_final_rest), _flat(d_start_h), _flat(d_start_rest),
                _flat(tape.saved), _flat(tape.old_h), _flat(tape.old_rest), _flat(dh_tape),
                *memory, row_at, dh_at,
                T, B, H, P, dy.shape[2], y_at, first, last,
                tape.reverse, tape.reset is not None, projected,
            )  # fmt: skip

        return work

    total = float(rows.steps) * G * H * P
    tasks = [task(first, last) for first, last in rows.split(_parts(total, share))]

    def finish() -> Gradients:
        return _products(tape, d_sums, dh_tape, d_start_h, d_start_rest)

    return Backward(tasks, total, finish)


def _products(
    tape: Tape, d_sums: Array, dh_tape: Array, d_start_h: Array, d_start_rest: Array
) -> Gradients:
    """The gradients that are products over all steps."""
    weights, rows = tape.weights, tape.rows
    cell, dtype = weights.cell, weights.dtype
    I, H, P = weights.input_size, weights.hidden_size, weights.state_size
    S, A, L = len(cell.sums), len(cell.apart), len(cell.late)
    G = len(cell.gates)
    E = G - L
    running = rows.running
    dx = np.zeros_like(tape.x) if rows.ragged else np.empty_like(tape.x)
    d_bias = np.zeros(S * H, dtype)
    tasks: list[threads.Task] = [
        lambda: products.bias_gradient(_flat(d_sums), S * H, running, d_bias)
    ]
    tasks += _input_tasks(d_sums, S * H, G * H, weights.backward.x, running, dx)
    d_x_rows, more = _weight_tasks(d_sums, S * H, 0, G * H, tape.x, running)
    tasks += more
    d_h_rows, more = _weight_tasks(d_sums, S * H, A * H, E * H, tape.old_h, running)
    tasks += more
    d_late_rows = np.empty((0, P), dtype)
    if L:
        d_late_rows, more = _weight_tasks(d_sums, S * H, E * H, L * H, tape.inner, running)
        tasks += more
    d_projection = None
    if weights.w_hr is not None:
        d_projection, more = _weight_tasks(dh_tape, P, 0, P, tape.full_h, running)
        tasks += more
    threads.run(tasks, float(running.size) * G * H * (2 * I + P))

    def in_gate_order(by_sum: Array, gates: tuple[str, ...]) -> Array:
        if gates == cell.gates:
            return by_sum.copy()  # rows of padded or shared memory
        position = [gates.index(gate) for gate in cell.gates]
        return np.concatenate([by_sum[p * H : (p + 1) * H] for p in position])

    h_rows = np.concatenate([d_h_rows, d_late_rows]) if L else d_h_rows
    return Gradients(
        x=dx,
        start_h=d_start_h,
        start_rest=d_start_rest,
        w_ih=in_gate_order(d_x_rows, cell.x_gates),
        w_hh=in_gate_order(h_rows, cell.h_gates),
        b_ih=in_gate_order(d_bias[: G * H], cell.x_gates),
        b_hh=in_gate_order(d_bias[A * H :], cell.h_gates),
        w_hr=d_projection,
    )


def _ranges(count: int, work: float) -> list[tuple[int, int]]:
    """Runs of 0..count for the threads, in whole tiles."""
    parts = _parts(work, 1)
    size = -(-count // (parts * MAX_ROWS)) * MAX_ROWS
    return [(first, min(first + size, count)) for first in range(0, count, max(size, 1))]


def _weight_tasks(
    d_sums: Array, width: int, at: int, M: int, b: Array, running: Indices
) -> tuple[Array, list[threads.Task]]:
    """The (M, N) gradient of a weight that multiplied b (T, B, N), and what computes it."""
    dtype, N = b.dtype, b.shape[2]
    panel = VECTORS * lanes_of(dtype)
    padded = -(-N // panel) * panel
    out = aligned(M * padded, dtype, zeros=True)

    def task(first: int, last: int) -> threads.Task:
        def work() -> None:
            products.weight_gradient(
                _flat(d_sums), at, width, _flat(b), N, N, running, first, last, out,
                aligned(products.DEPTH * (products.SPAN + products.PADDING), dtype),
                aligned(products.DEPTH * padded, dtype),
                np.empty(MAX_ROWS, np.int64),
            )  # fmt: skip

        return work

    ranges = _ranges(M, float(running.size) * M * N)
    return out.reshape(M, padded)[:, :N], [task(*part) for part in ranges]


def _input_tasks(
    d_sums: Array, width: int, depth: int, panels: Array, running: Indices, dx: Array
) -> list[threads.Task]:
    """What computes dx (T, B, I)."""
    dtype, I = dx.dtype, dx.shape[2]

    def task(first: int, last: int) -> threads.Task:
        def work() -> None:
            products.input_gradient(
                _flat(d_sums), width, depth, panels, running, first, last, _flat(dx), I,
                aligned(MAX_ROWS * VECTORS * lanes_of(dtype), dtype),
                np.empty(INPUT_GRADIENT_ROWS, np.int64),
            )  # fmt: skip

        return work

    return [task(*part) for part in _ranges(running.size, float(running.size) * depth * I)]
