"""The step of a normed layer: products, then the norms of whole rows, then gates.

Its own memory behind the states holds both parts of the sums, [row][panel][gate][units] each, of x
and then of h. A pass over panels computes them, one over rows normalises them, and one over panels
adds them and applies the gates; so the sums are those of a sequence (`sequence/normed.py`).
"""

from collections.abc import Callable
from typing import Any

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.isa.address import on_stack, values, word
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.vector import load, store
from fastrnn_kernels.cpu.product.fixed_block import fixed_block
from fastrnn_kernels.cpu.product.norms import normaliser
from fastrnn_kernels.cpu.product.storage import element, elements
from fastrnn_kernels.cpu.stream.stage import shared, tiled

#: What reads h: `(s, turn, row)` where a row's begins; `(s, program)` rows that panels hold;
#: `(s, program, n)` the first row of panel n, and how many; whether panels have rows of their own;
#: and how many rows they have, if it is known.
ReadsH = tuple[Any, Any, Any, bool, int | None]


def normed_passes(
    cell: Cell, norm: str, kind: Any, storage: str, W: int, units: int, B: int | None,
    I: int | None, near: bool, gains: int, reads: ReadsH, gates: Callable[[int, int], Any],
    team: bool,
) -> list[Any]:  # fmt: skip
    """The passes of a step, as `CellStage.step` has them.

    gains: the first of the two slots of gains, of x and of h. gates: makes what applies the gates
    to sums [row][panel][S][U].
    """
    G, A, E, S, U, Z = cell.G, cell.A, cell.E, cell.S, W * units, cell.X + cell.A
    of, numbers, elements_of = values(element(storage, kind)), values(kind), elements(storage)
    h_at, depth_of, rows_of_h, apart, known_rows = reads
    of_x = normaliser(G, units, norm, True)
    of_h = normaliser(max(1, E), units, norm, False)
    load_one, store_one = load(1), store(1)

    @inlined
    def x_part(s, q):  # type: ignore[no-untyped-def]
        return s.sums_at + q * s.rest_step * G

    @inlined
    def h_part(s, q):  # type: ignore[no-untyped-def]
        return s.sums_at + s.rest_step * (s.B * G + q * E)

    def products(rows: int, many: int) -> Any:
        x_product = fixed_block(rows, many, G * units, I, storage, from_zero=True)
        panels = 1 if apart else many
        h_product = fixed_block(
            rows, panels, max(1, E) * units, known_rows, storage, from_zero=True
        )

        @inlined
        def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
            slot, IE, DE = s.slot, elements_of(s.I), elements_of(depth_of(s, program))
            to, row = x_part(s, q) + n * G * U, s.rest_step * G
            x_product(
                memory, to, row, G * U, memory, to, row, G * U,
                x, q * x_step, x_step, of(word(program, slot)), n * IE * G * U, IE * G * U,
                numbers(word(program, slot + 6)), n * G * U, s.I,
            )  # fmt: skip
            if E > 0:
                row = s.rest_step * E
                for p in range(many // panels):
                    first, length = rows_of_h(s, program, n + p)
                    to = h_part(s, q) + (n + p) * E * U
                    h_product(
                        memory, to, row, E * U, memory, to, row, E * U,
                        memory, h_at(s, turn, q) + first, s.out_step,
                        of(word(program, slot + 2)), (n + p) * DE * E * U, DE * E * U,
                        numbers(word(program, slot + 7)), (n + p) * E * U, length,
                    )  # fmt: skip

        return run

    @inlined
    def norms(s, program, memory, x, x_step, turn, first, last):  # type: ignore[no-untyped-def]
        bias = numbers(word(program, s.slot + 1))
        for q in range(first, last):
            x_gains = numbers(word(program, s.slot + gains))
            of_x(memory, x_part(s, q), G * U, s.H, W, x_gains, bias, memory, 0, 0, False)
            if E > 0:
                h_gains = numbers(word(program, s.slot + gains + 1))
                of_h(memory, h_part(s, q), E * U, s.H, W, h_gains, bias, memory, 0, 0, False)

    def added(rows: int, many: int) -> Any:
        apply, sums_of = gates(rows, many), on_stack(kind, rows * many * S * U)

        @inlined
        def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
            sums = sums_of()
            h_bias = numbers(word(program, s.slot + 3))
            for r in range(rows):
                for p in range(many):
                    to = (r * many + p) * S * U
                    x_at = x_part(s, q + r) + (n + p) * G * U
                    part_at = h_part(s, q + r) + (n + p) * E * U
                    for j in range(G * units):
                        (a,) = load_one(memory, x_at + j * W, 0)
                        if E > 0 and j >= Z * units:
                            (b,) = load_one(memory, part_at + (j - Z * units) * W, 0)
                            a = a + b
                        store_one(sums, to + j * W, 0, (a,))
                    for j in range(A * units):
                        (a,) = load_one(h_bias, (n + p) * A * U + j * W, 0)
                        (b,) = load_one(memory, part_at + (G - Z) * U + j * W, 0)
                        store_one(sums, to + G * U + j * W, 0, (a + b,))
            apply(s, program, memory, turn, q, n, sums, 0, many * S * U)

        return run

    panels = inlined(lambda s: s.rest_step // U)
    return [
        shared(tiled(B, G * units, near, products), panels, team),
        shared(norms, inlined(lambda s: s.B), team),
        shared(tiled(B, G * units, near, added), panels, team),
    ]
