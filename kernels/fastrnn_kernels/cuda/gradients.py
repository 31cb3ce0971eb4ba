"""The gradients that are products over all time steps, computed after the loop over them."""

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, xp
from fastrnn_kernels.cuda.launch.blas import multiplied
from fastrnn_kernels.gradients import Gradients, in_gate_order
from fastrnn_kernels.tape import Tape


def gradients(
    tape: Tape[Weights],
    d_sums: Array,
    dh_tape: Array,
    d_units: Array,
    d_start_h: Array,
    d_start_rest: Array,
    inputs: bool,
    onto: Array | None,
) -> Gradients:
    """The gradients that are products over all steps: sums in one order, run for run."""
    weights, cell = tape.weights, tape.weights.cell
    T, B, S, H = d_sums.shape
    G, L, E, Z = cell.G, cell.L, cell.E, cell.X + cell.A
    steps = T * B
    sums = d_sums.reshape(steps, S * H)
    x = tape.x.reshape(steps, weights.input_size)
    if tape.rows.ragged:  # padding may hold anything: 0 times NaN would be NaN
        running = xp.zeros(steps, bool)
        running[xp.asarray(tape.rows.running)] = True
        x = xp.where(running[:, None], x, xp.zeros(1, x.dtype))
    x_sums, h_sums = sums[:, : G * H], sums[:, Z * H : (Z + E) * H]
    compute = weights.compute
    dx = None
    if inputs:
        dx = multiplied(x_sums, weights.matrices.x, compute).reshape(tape.x.shape)
        if onto is not None:
            onto += dx
            dx = onto
    d_x_rows = multiplied(x_sums.T, x, compute)
    d_h_rows = xp.empty((0, weights.state_size), weights.dtype)
    if E:
        met = tape.old_h if tape.h_mask is None else tape.old_h * tape.h_mask
        old_h = met.reshape(steps, weights.state_size)
        d_h_rows = multiplied(h_sums.T, old_h, compute)
    if L:
        late = sums[:, (G - L) * H : G * H]
        d_late_rows = multiplied(late.T, tape.inner.reshape(steps, H), compute)
        d_h_rows = xp.concatenate([d_h_rows, d_late_rows])
    d_projection = None
    if weights.w_hr is not None:
        full_h = tape.full_h.reshape(steps, H)
        dh = dh_tape.reshape(steps, weights.state_size)
        d_projection = multiplied(dh.T, full_h, compute)
    weights.note()
    d_bias = sums.sum(axis=0)

    return Gradients(
        x=dx,
        start_h=d_start_h,
        start_rest=d_start_rest,
        w_ih=in_gate_order(xp, cell.gates, d_x_rows, cell.x_gates),
        w_hh=weights.of_blocks(xp, in_gate_order(xp, cell.recurrent, d_h_rows, cell.h_gates)),
        b_ih=in_gate_order(xp, cell.gates, d_bias[: G * H], cell.x_gates),
        b_hh=in_gate_order(xp, cell.recurrent, d_bias[Z * H :], cell.h_gates),
        w_hr=d_projection,
        units=d_units.sum(axis=0) if cell.Q else None,
    )
