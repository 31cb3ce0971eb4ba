"""The stage of a layer of cells: products, gates and states of one step (`stage.py`)."""

from dataclasses import dataclass, field
from typing import Any

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.registry import called
from fastrnn_kernels.cpu.isa.address import on_stack, values, word
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.instruction_set import InstructionSet
from fastrnn_kernels.cpu.isa.vector import load, load_from_two, store
from fastrnn_kernels.cpu.product.fixed_block import fixed_block
from fastrnn_kernels.cpu.product.panels import VECTORS, padded, vectors_per_gate
from fastrnn_kernels.cpu.product.storage import element, elements
from fastrnn_kernels.cpu.stream.normed_stage import normed_passes
from fastrnn_kernels.cpu.stream.stage import FLOATS, NEAR, Sizes, one_after_another, shared, tiled


@dataclass(frozen=True)
class CellStage:
    """A layer of cells: B rows, I inputs, H units, and P values of h if it is projected."""

    cell: Cell
    dtype: str
    storage: str  # of the weights: `product/storage.py`
    B: int
    I: int
    H: int
    P: int
    projected: bool
    blocks: int = 1  # of R
    norm: str = ""
    isa: InstructionSet = field(default_factory=current, repr=False)

    @property
    def SLOTS(self) -> int:  # noqa: N802
        """How many addresses of weights there are.

        x, bias, h, h_bias, late, projection; scales of x, h, late, projection; parameters per unit;
        what panels read of h, if R is made of blocks: their depth, and of each the first row and
        how many; gains of x and of h, if there is a norm.
        """
        return self._gains + 2 * bool(self.norm)

    @property
    def _gains(self) -> int:
        """The first slot of gains."""
        return 11 + (self.blocks > 1)

    @property
    def _lanes(self) -> int:
        return self.isa.lanes(int(FLOATS[self.dtype].bitwidth) // 8)

    @property
    def key(self) -> str:
        """What its compiled function is kept under."""
        projection = f"-{self.P}" if self.projected else ""
        blocks = f"-{self.blocks}blocks" if self.blocks > 1 else ""
        sizes = f"{self.B}x{self.I}-{self.H}{projection}{blocks}"
        return f"{self.cell.key}{self._normed}-{self.dtype}-{self.storage}-{sizes}"

    @property
    def _normed(self) -> str:
        return f"-{self.norm}-norm" if self.norm else ""

    @property
    def words(self) -> str:
        """What it is called while it is compiled."""
        return f"{called(self.cell)}, {self.I} to {self.P}"

    @property
    def _panel_units(self) -> int:
        return vectors_per_gate(self.cell) * self._lanes

    @property
    def rest_step(self) -> int:
        """H, padded to whole panels."""
        return padded(self.H, self._panel_units)

    @property
    def out_step(self) -> int:
        """P, padded to whole panels."""
        width = VECTORS * self._lanes
        return padded(self.P, width) if self.projected else self.rest_step

    @property
    def out_size(self) -> int:
        """P."""
        return self.P

    @property
    def layout(self) -> tuple[int, int, int, int]:
        """Where its parts begin in its values, behind h, and their end.

        The other states (., B, rest_step); h before a projection, or the value that late
        gates multiply (B, rest_step); the sums of a cell with late gates (B, panels, S, U); both
        parts of the sums of a normed one, (B, panels, G, U) and (B, panels, E, U).
        """
        one, late = self.B * self.rest_step, bool(self.cell.late)
        rest = 2 * self.B * self.out_step
        inner = rest + (self.cell.N - 1) * one
        sums = inner + (one if self.projected or late else 0)
        parts = self.cell.G + self.cell.E if self.norm else self.cell.S if late else 0
        return rest, inner, sums, sums + parts * one

    @property
    def size(self) -> int:
        """Values of memory that it takes."""
        return self.layout[-1]

    @property
    def work(self) -> int:
        """Multiply-adds of a step."""
        gates = self.H * (self.cell.G * self.I + self.cell.GH * self.P // self.blocks)
        return self.B * (gates + (self.H * self.P if self.projected else 0))

    def sizes(self, slot: int, at: int) -> Sizes:
        """What its step has to know: its weights begin at a slot, its values at `at`."""
        rest_at, inner_at, sums_at, _ = (at + part for part in self.layout)
        return Sizes(
            slot, at, self.B, self.I, self.H, self.P, self.rest_step, self.out_step, rest_at,
            inner_at, sums_at,
        )  # fmt: skip

    @property
    def kind(self) -> str:
        """What a step of any sizes is kept under."""
        how = "-projected" * self.projected + "-blocks" * (self.blocks > 1) + self._normed
        return f"{self.cell.key}{how}-{self.dtype}-{self.storage}"

    def step(self, known: bool, team: bool) -> Any:
        """The function that runs one step, as `stage.py` has it.

        known: whether for the sizes of this stage alone, or for all of its kind.
        """
        cell, kind, projected = self.cell, FLOATS[self.dtype], self.projected
        B, I, H, P = (self.B, self.I, self.H, self.P) if known else (None,) * 4
        near = known and self.work // self.B <= NEAR
        W, U = self._lanes, self._panel_units
        G, A, L, E, S, N = cell.G, cell.A, cell.L, cell.E, cell.S, cell.N
        Z = cell.X + A  # the first sum that h has a part in
        units, width = U // W, VECTORS * W
        of, numbers = values(element(self.storage, kind)), values(kind)
        elements_of = elements(self.storage)
        forward = inlined(cell.forward)
        inner_value = inlined(cell.inner) if cell.inner else forward
        load_sums, load_early = load(S), load(G - L)
        load_states, load_units = load_from_two(1, N - 1), load(cell.Q)
        load_one, store_one, store_rest = load(1), store(1), store(N - 1)

        def gates(rows: int, many: int) -> Any:
            """Apply the gates to sums [row][panel][S][U] and keep the new states."""

            @inlined
            def applied(s, program, memory, turn, q, n, sums, at_first, row_step):  # type: ignore[no-untyped-def]
                for r in range(rows):
                    for j in range(many * units):
                        u = n * U + j * W
                        if u >= s.H:
                            break
                        at = at_first + r * row_step + j // units * (S * U) + j % units * W
                        # Of a projected h no value belongs to the unit, and its cell reads none.
                        own = h_at(s, turn, q + r) + (0 if projected else u)
                        unit = (q + r) * s.rest_step + u
                        rest, rest_step = s.rest_at + unit, s.B * s.rest_step
                        states = load_states(memory, own, 0, memory, rest, rest_step)
                        new, _ = forward(load_sums(sums, at, U), states + per_unit(s, program, u))
                        store_rest(memory, rest, rest_step, new[1:])
                        if projected:
                            store_one(memory, s.inner_at + unit, 0, new[:1])
                        else:
                            store_one(memory, h_at(s, 1 - turn, q + r) + u, 0, new[:1])

            return applied

        @inlined
        def per_unit(s, program, u):  # type: ignore[no-untyped-def]
            return load_units(numbers(word(program, s.slot + 10)), u, s.rest_step)

        @inlined
        def h_at(s, turn, row):  # type: ignore[no-untyped-def]
            return s.at + (turn * s.B + row) * s.out_step

        depth_of = inlined(lambda s, program: s.P)
        rows_of_h = inlined(lambda s, program, n: (0, s.P))
        if self.blocks > 1:
            depth_of = inlined(lambda s, program: word(word(program, s.slot + 11), 0))

            @inlined
            def rows_of_h(s, program, n):  # type: ignore[no-untyped-def]
                reach = word(program, s.slot + 11)
                return word(reach, 1 + 2 * n), word(reach, 2 + 2 * n)

        def add_products(rows: int, many: int) -> Any:
            """Sums [row][panel][S][U], but for the h-parts of late gates."""
            x_product = fixed_block(rows, many, G * units, I, self.storage)
            # Panels of blocks read rows of their own, each as many as it has.
            blocked = self.blocks > 1
            panels, known_rows = (1, None) if blocked else (many, P)
            h_product = fixed_block(rows, panels, max(1, E) * units, known_rows, self.storage)

            @inlined
            def added(s, program, memory, x, x_step, turn, q, n, sums, at, row_step):  # type: ignore[no-untyped-def]
                slot, IE = s.slot, elements_of(s.I)
                bias = numbers(word(program, slot + 1))
                x_product(
                    sums, at, row_step, S * U, bias, n * G * U, 0, G * U,
                    x, q * x_step, x_step, of(word(program, slot)), n * IE * G * U, IE * G * U,
                    numbers(word(program, slot + 6)), n * G * U, s.I,
                )  # fmt: skip
                if A > 0:
                    h_bias = numbers(word(program, slot + 3))
                    for r in range(rows):
                        for p in range(many):
                            for j in range(A * units):
                                part = load_one(h_bias, (n + p) * A * U + j * W, 0)
                                target = at + r * row_step + p * S * U + G * U + j * W
                                store_one(sums, target, 0, part)
                if E > 0:
                    DE = elements_of(depth_of(s, program))
                    for p in range(many // panels):
                        first, length = rows_of_h(s, program, n + p)
                        to = at + Z * U + p * S * U
                        h_product(
                            sums, to, row_step, S * U, sums, to, row_step, S * U,
                            memory, h_at(s, turn, q) + first, s.out_step,
                            of(word(program, slot + 2)), (n + p) * DE * E * U, DE * E * U,
                            numbers(word(program, slot + 7)), (n + p) * E * U, length,
                        )  # fmt: skip

            return added

        def whole_step(rows: int, many: int) -> Any:
            add, apply = add_products(rows, many), gates(rows, many)
            sums_of = on_stack(kind, rows * many * S * U)

            @inlined
            def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
                sums = sums_of()
                add(s, program, memory, x, x_step, turn, q, n, sums, 0, many * S * U)
                apply(s, program, memory, turn, q, n, sums, 0, many * S * U)

            return run

        @inlined
        def sums_of_row(s, q, n):  # type: ignore[no-untyped-def]
            """Where the sums of a row begin from a panel on, and those of the next row."""
            step = s.rest_step * S
            return s.sums_at + q * step + n * S * U, step

        def early_step(rows: int, many: int) -> Any:
            """The early gates' sums, and the value that the late gates multiply."""
            add = add_products(rows, many)

            @inlined
            def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
                first, step = sums_of_row(s, q, n)
                add(s, program, memory, x, x_step, turn, q, n, memory, first, step)
                for r in range(rows):
                    for j in range(many * units):
                        u = n * U + j * W
                        early = first + r * step + j // units * S * U + j % units * W
                        unit = (q + r) * s.rest_step + u
                        states = load_states(
                            memory, h_at(s, turn, q + r) + u, 0,
                            memory, s.rest_at + unit, s.B * s.rest_step,
                        )  # fmt: skip
                        value = inner_value(
                            load_early(memory, early, U), states + per_unit(s, program, u)
                        )
                        store_one(memory, s.inner_at + unit, 0, (value,))

            return run

        def late_step(rows: int, many: int) -> Any:
            product = fixed_block(rows, many, max(1, L) * units, H, self.storage)
            apply = gates(rows, many)

            @inlined
            def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
                first, step = sums_of_row(s, q, n)
                late, HE = first + (G - L) * U, elements_of(s.H)
                product(
                    memory, late, step, S * U, memory, late, step, S * U,
                    memory, s.inner_at + q * s.rest_step, s.rest_step,
                    of(word(program, s.slot + 4)), n * HE * L * U, HE * L * U,
                    numbers(word(program, s.slot + 8)), n * L * U, s.H,
                )  # fmt: skip
                apply(s, program, memory, turn, q, n, memory, first, step)

            return run

        def projection(rows: int, many: int) -> Any:
            product = fixed_block(rows, many, VECTORS, H, self.storage, from_zero=True)

            @inlined
            def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
                first, HE = h_at(s, 1 - turn, q) + n * width, elements_of(s.H)
                product(
                    memory, first, s.out_step, width, memory, first, s.out_step, width,
                    memory, s.inner_at + q * s.rest_step, s.rest_step,
                    of(word(program, s.slot + 5)), n * HE * width, HE * width,
                    numbers(word(program, s.slot + 9)), n * width, s.H,
                )  # fmt: skip

            return run

        if self.norm:
            reads = h_at, depth_of, rows_of_h, self.blocks > 1, None if self.blocks > 1 else P
            passes = normed_passes(
                cell, self.norm, kind, self.storage, W, units, B, I, near, self._gains, reads,
                gates, team,
            )  # fmt: skip
            return one_after_another(passes)
        panels = inlined(lambda s: s.rest_step // U)
        of_projection = inlined(lambda s: s.out_step // width)
        if L > 0:
            passes = [(tiled(B, G * units, near, early_step), panels)]
            passes += [(tiled(B, L * units, near, late_step), panels)]
        else:
            passes = [(tiled(B, G * units, near, whole_step), panels)]
        if projected:
            passes += [(tiled(B, VECTORS, near, projection), of_projection)]
        return one_after_another([shared(run, many, team) for run, many in passes])
