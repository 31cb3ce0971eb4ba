"""What masks say when a recipe runs: which steps run, in which order rows are taken, what is shown.

mask (B, T) of a framework: true where a step runs, anywhere in a row. The kernels have the steps of
each row that run, one behind the other; `backwards` takes them from the end of the time. A step
that does not run shows zeros, if `zeros`, else the output before it, `before` (B, H) where none is.
`given` (B,) is how many run of each row, in the order of the batch.
"""

from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import flat
from fastrnn_kernels.cpu.product.tile import add, copy
from fastrnn_kernels.cpu.sequence.plan import block_steps
from fastrnn_kernels.cpu.threads.job import job

_block_steps = inlined(block_steps)


@inlined
def _clear(target, at, count):  # type: ignore[no-untyped-def]
    to = target[at : at + count]
    for u in range(count):
        to[u] = 0


@job("mask-rows")
def rows(arguments):  # type: ignore[no-untyped-def]
    """As `Rows`: order (B,), longest first, their lengths (B,), and valid (T,).

    Writes `given`, too; places (T + 1,) is to work in.
    """

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, order, lengths, valid, given, places = arguments(record)
        B, T = mask.shape
        for s in range(T):
            valid[s] = 0
        for b in range(B):
            length = 0
            for t in range(T):
                length += mask[b, t]
            given[b] = length
            for s in range(length):
                valid[s] += 1
        places[T] = 0
        for s in range(T):
            places[s] = valid[s]
        for b in range(B):
            length = given[b]
            at = places[length]
            order[at], lengths[at] = b, length
            places[length] = at + 1

    return run


@job("mask-pieces")
def pieces(arguments):  # type: ignore[no-untyped-def]
    """As `Rows.split`, where no piece has more than `most` rows: out, as `room` but for them.

    Pieces have about the same number of steps each; some may have no rows.
    """

    def run(record, number, members):  # type: ignore[no-untyped-def]
        lengths, room, T, most, row_bytes, out = arguments(record)
        B, parts = lengths.size, room.shape[0]
        total, taken, last = 0, 0, 0
        for p in range(B):
            total += lengths[p]
        for k in range(parts):
            first, behind = last, (parts - 1 - k) * most
            while (
                last < B
                and last - first < most
                and (taken * parts < total * (k + 1) or B - last > behind)
            ):
                taken += lengths[last]
                last += 1
            out[k, 0], out[k, 1] = first, last
            out[k, 2] = _block_steps(T, row_bytes, last - first, 1)
            for n in range(3, 6):
                out[k, n] = room[k, n]

    return run


@job("mask-running")
def running(arguments):  # type: ignore[no-untyped-def]
    """As `Rows.running`: positions t * B + b (T * B,), and how many of them there are."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        given, T, at, many = arguments(record)
        B, count = given.size, 0
        for t in range(T):
            for b in range(B):
                if t < given[b]:
                    at[count] = t * B + b
                    count += 1
        many[0] = count

    return run


@job("mask-gather")
def gathered(arguments):  # type: ignore[no-untyped-def]
    """x (B, T, n), the steps that run -> out (T, B, n)."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, x, backwards, out = arguments(record)
        B, T, n = x.shape
        origin, to = flat(x), flat(out)
        for b in range(B):
            step = 0
            for j in range(T):
                t = T - 1 - j if backwards else j
                if mask[b, t]:
                    copy(to, (step * B + b) * n, origin, (b * T + t) * n, n)
                    step += 1

    return run


@job("mask-scatter")
def scattered(arguments):  # type: ignore[no-untyped-def]
    """dx (T, B, n) -> out (B, T, n), zeros where a step does not run."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, dx, backwards, out = arguments(record)
        B, T, n = out.shape
        origin, to = flat(dx), flat(out)
        for b in range(B):
            step = 0
            for j in range(T):
                t = T - 1 - j if backwards else j
                if mask[b, t]:
                    copy(to, (b * T + t) * n, origin, (step * B + b) * n, n)
                    step += 1
                else:
                    _clear(to, (b * T + t) * n, n)

    return run


@job("mask-show")
def shown(arguments):  # type: ignore[no-untyped-def]
    """y (T, B, n), in the kernels' steps -> out (B, T, n), in the order of the run."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, y, before, backwards, zeros, out = arguments(record)
        B, T, n = out.shape
        origin, start, to = flat(y), flat(before), flat(out)
        for b in range(B):
            steps = 0
            for j in range(T):
                runs, at = mask[b, T - 1 - j if backwards else j], (b * T + j) * n
                steps += runs
                if zeros and not runs:
                    _clear(to, at, n)
                elif steps == 0:
                    copy(to, at, start, b * n, n)
                else:
                    copy(to, at, origin, ((steps - 1) * B + b) * n, n)

    return run


@job("mask-show-backward")
def d_shown(arguments):  # type: ignore[no-untyped-def]
    """The gradient (B, T, n) of what `shown` gives -> those of y and of `before`.

    space (n,) is to work in.
    """

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, d_out, given, backwards, zeros, dy, d_before, space = arguments(record)
        B, T, n = d_out.shape
        origin, to, start = flat(d_out), flat(dy), flat(d_before)
        for b in range(B):
            step = given[b]
            _clear(space, 0, n)
            for j in range(T - 1, -1, -1):
                runs, at = mask[b, T - 1 - j if backwards else j], (b * T + j) * n
                if runs or not zeros:
                    add(space, 0, origin, at, n)
                if runs:
                    step -= 1
                    copy(to, (step * B + b) * n, space, 0, n)
                    _clear(space, 0, n)
            copy(start, b * n, space, 0, n)

    return run


@job("mask-show-last")
def shown_last(arguments):  # type: ignore[no-untyped-def]
    """What the last step shows, out (B, n): h (B, n) of each row's end if one ran."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, h, before, given, backwards, zeros, out = arguments(record)
        (B, n), T = h.shape, mask.shape[1]
        for b in range(B):
            if zeros and not mask[b, 0 if backwards else T - 1]:
                _clear(out[b], 0, n)
            else:
                copy(out[b], 0, h[b] if given[b] > 0 else before[b], 0, n)

    return run


@job("mask-show-last-backward")
def d_shown_last(arguments):  # type: ignore[no-untyped-def]
    """The gradient (B, n) of what `shown_last` gives, added to d_h -> out, and that of `before`."""

    def run(record, number, members):  # type: ignore[no-untyped-def]
        mask, d_out, d_h, given, backwards, zeros, out, d_before = arguments(record)
        (B, n), T = d_out.shape, mask.shape[1]
        for b in range(B):
            copy(out[b], 0, d_h[b], 0, n)
            _clear(d_before[b], 0, n)
            if zeros and not mask[b, 0 if backwards else T - 1]:
                continue
            add(out[b] if given[b] > 0 else d_before[b], 0, d_out[b], 0, n)

    return run
