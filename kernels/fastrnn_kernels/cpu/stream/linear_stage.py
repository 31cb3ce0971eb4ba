"""The stage of a linear layer: one product and an activation (`stage.py`)."""

from dataclasses import dataclass, field
from typing import Any

from fastrnn_kernels.cells.activations import PLAIN
from fastrnn_kernels.cpu.isa.address import values, word
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.instruction_set import InstructionSet
from fastrnn_kernels.cpu.isa.vector import load, store
from fastrnn_kernels.cpu.product.fixed_block import fixed_block
from fastrnn_kernels.cpu.product.panels import VECTORS, padded
from fastrnn_kernels.cpu.product.storage import element, elements
from fastrnn_kernels.cpu.stream.stage import FLOATS, NEAR, Sizes, shared, tiled


def _activation(name: str | None) -> Any:
    """The function of a register of units."""
    if name is None:
        return inlined(lambda x: x)
    function = PLAIN[name]
    return inlined(lambda x: function(x))


@dataclass(frozen=True)
class LinearStage:
    """y = φ(W x + b) for B rows, I inputs and H outputs, φ by its name or None."""

    activation: str | None
    dtype: str
    storage: str
    B: int
    I: int
    H: int
    isa: InstructionSet = field(default_factory=current, repr=False)

    #: Addresses of weights: panels, bias, scales.
    SLOTS = 3

    @property
    def _lanes(self) -> int:
        return self.isa.lanes(int(FLOATS[self.dtype].bitwidth) // 8)

    @property
    def key(self) -> str:
        """What its compiled function is kept under."""
        sizes = f"{self.B}x{self.I}-{self.H}"
        return f"linear-{self.activation}-{self.dtype}-{self.storage}-{sizes}"

    @property
    def words(self) -> str:
        """What it is called while it is compiled."""
        return f"Linear, {self.I} to {self.H}"

    @property
    def out_step(self) -> int:
        """H, padded to whole panels."""
        return padded(self.H, VECTORS * self._lanes)

    @property
    def out_size(self) -> int:
        """H."""
        return self.H

    @property
    def size(self) -> int:
        """Values of memory that it takes."""
        return 2 * self.B * self.out_step

    @property
    def work(self) -> int:
        """Multiply-adds of a step."""
        return self.B * self.I * self.H

    def sizes(self, slot: int, at: int) -> Sizes:
        """What its step has to know: its weights begin at a slot, its values at `at`."""
        end = at + self.size
        step = self.out_step
        return Sizes(slot, at, self.B, self.I, self.H, 0, step, step, end, end, end)

    @property
    def kind(self) -> str:
        """What a step of any sizes is kept under."""
        return f"linear-{self.activation}-{self.dtype}-{self.storage}"

    def step(self, known: bool, team: bool) -> Any:
        """The function that runs one step, as `stage.py` has it.

        known: whether for the sizes of this stage alone, or for all of its kind.
        """
        B, I = (self.B, self.I) if known else (None, None)
        kind = FLOATS[self.dtype]
        of, numbers = values(element(self.storage, kind)), values(kind)
        W, elements_of = self._lanes, elements(self.storage)
        width = VECTORS * W
        load_one, store_one = load(1), store(1)
        activation = _activation(self.activation)

        def tile(rows: int, many: int) -> Any:
            product = fixed_block(rows, many, VECTORS, I, self.storage)

            @inlined
            def run(s, program, memory, x, x_step, turn, q, n):  # type: ignore[no-untyped-def]
                slot, HW, IE = s.slot, s.out_step, elements_of(s.I)
                first = s.at + ((1 - turn) * s.B + q) * HW + n * width
                product(
                    memory, first, HW, width, numbers(word(program, slot + 1)), n * width, 0, width,
                    x, q * x_step, x_step, of(word(program, slot)), n * IE * width, IE * width,
                    numbers(word(program, slot + 2)), n * width, s.I,
                )  # fmt: skip
                for r in range(rows):
                    for u in range(0, many * width, W):
                        if n * width + u >= s.H:
                            break
                        place = first + r * HW + u
                        (value,) = load_one(memory, place, 0)
                        store_one(memory, place, 0, (activation(value),))

            return run

        panels = inlined(lambda s: s.out_step // width)
        near = known and self.work // self.B <= NEAR
        return shared(tiled(B, VECTORS, near, tile), panels, team)
