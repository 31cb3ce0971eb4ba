"""Arrays of a framework from and to the kernels' order, as jobs of a recipe.

Sequences are (B, T, ...) there and (T, B, ...) here. Its weights are transposed, a gate's columns
side by side; they go to panels as they lie, value by value as `cpu/product/packing.py` has them.
"""

from fastrnn_kernels.cpu.isa.llvm import flat
from fastrnn_kernels.cpu.product.packing import pack_gates, pack_plain
from fastrnn_kernels.cpu.product.tile import copy
from fastrnn_kernels.cpu.threads.job import job


@job("exchange-clear")
def clear(arguments):  # type: ignore[no-untyped-def]
    """Zeros into an array (n,)."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (out,) = arguments(record)
        for k in range(out.size):
            out[k] = 0

    return run


@job("exchange-copy")
def copied(arguments):  # type: ignore[no-untyped-def]
    """One array (n,) into another."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        source, target = arguments(record)
        copy(target, 0, source, 0, source.size)

    return run


@job("exchange-sum")
def added(arguments):  # type: ignore[no-untyped-def]
    """The sum of two arrays (n,) into a third."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        one, other, target = arguments(record)
        for k in range(one.size):
            target[k] = one[k] + other[k]

    return run


@job("exchange-axes")
def axes(arguments):  # type: ignore[no-untyped-def]
    """source (A, B, n) into target (B, A, n), a flipped axis of the source from its end."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (source, target, flip_first, flip_second) = arguments(record)
        A, B, n = source.shape
        origin, to = flat(source), flat(target)
        for b in range(B):
            b_from = B - 1 - b if flip_second else b
            for a in range(A):
                a_from = A - 1 - a if flip_first else a
                copy(to, (b * A + a) * n, origin, (a_from * B + b_from) * n, n)

    return run


@job("exchange-biases")
def biases(arguments):  # type: ignore[no-untyped-def]
    """As `Weights.biases`, in the framework's order.

    bias (0, 1 or 2, G H) -> x_bias and h_bias (G H,); apart (G,): the gates whose two parts are
    kept apart.
    """

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (bias, apart, x_bias, h_bias) = arguments(record)
        many, zero = bias.shape[0], x_bias.dtype.type(0)
        H = x_bias.size // apart.size
        for k in range(x_bias.size):
            first = bias[0, k] if many > 0 else zero
            second = bias[1, k] if many > 1 else zero
            x_bias[k] = first if apart[k // H] else first + second
            h_bias[k] = second

    return run


@job("exchange-gates")
def gate_panels(arguments):  # type: ignore[no-untyped-def]
    """matrix (K, G H), gates at these positions -> out [panel][K][gate][U], padded with zeros."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (matrix, positions, H, U, out) = arguments(record)
        K, width = matrix.shape
        values, to = flat(matrix), 0
        for n in range((H + U - 1) // U):
            many = min(U, H - n * U)
            for k in range(K):
                for g in range(positions.size):
                    copy(out, to, values, k * width + positions[g] * H + n * U, many)
                    for u in range(many, U):
                        out[to + u] = 0
                    to += U

    return run


@job("exchange-plain")
def plain_panels(arguments):  # type: ignore[no-untyped-def]
    """matrix (N, G H), gates at these positions -> out [panel][gates H][U], padded with zeros."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (matrix, positions, H, U, out) = arguments(record)
        N, width = matrix.shape
        values, depth = flat(matrix), positions.size * H
        for n in range((N + U - 1) // U):
            for u in range(U):
                row = n * U + u
                for g in range(positions.size):
                    to = (n * depth + g * H) * U + u
                    first = row * width + positions[g] * H
                    for k in range(H):
                        out[to + k * U] = values[first + k] if row < N else 0

    return run


@job("exchange-gradient")
def gradient(arguments):  # type: ignore[no-untyped-def]
    """rows (gates H, columns or more) -> out (columns, G H), the gates to these positions."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (rows, positions, H, out) = arguments(record)
        columns, to_width = out.shape
        origin, to, width = flat(rows), flat(out), rows.shape[1]
        for k in range(columns):
            for g in range(positions.size):
                first = k * to_width + positions[g] * H
                for u in range(H):
                    to[first + u] = origin[(g * H + u) * width + k]

    return run


@job("exchange-rows")
def ordered(arguments):  # type: ignore[no-untyped-def]
    """rows (gates H, columns or more) -> out (G H, columns), the gates to these positions."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (rows, positions, H, out) = arguments(record)
        columns = out.shape[1]
        origin, to, width = flat(rows), flat(out), rows.shape[1]
        for g in range(positions.size):
            for k in range(H):
                copy(to, (positions[g] * H + k) * columns, origin, (g * H + k) * width, columns)

    return run


@job("exchange-gate-rows")
def gate_rows(arguments):  # type: ignore[no-untyped-def]
    """matrix (G H, K) of rows, as the kernels' own weights -> panels of `packing.gate_panels`."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (matrix, positions, H, U, out) = arguments(record)
        pack_gates(matrix, positions, H, U, out)

    return run


@job("exchange-plain-rows")
def plain_rows(arguments):  # type: ignore[no-untyped-def]
    """matrix (G H, N) of rows, as the kernels' own weights -> panels of `packing.plain_panels`."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        (matrix, positions, H, U, out) = arguments(record)
        pack_plain(matrix, positions, H, U, out)

    return run
