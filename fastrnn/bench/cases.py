"""What is measured: suites, shapes, and the floating-point operations a case takes.

Nothing but the standard library is imported, so that the command line can offer the suites'
names without importing contenders.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
CELLS = tuple(GATES)
PASSES = ("forward", "train")
DTYPES = ("float32", "float64")
ITEM_BYTES = {"float32": 4, "float64": 8}


#: Numbers in the largest array of a case: 4 GiB of float32.
LARGEST = 2**30


class Shape(NamedTuple):
    """T time steps, B sequences in the batch, I values in, H hidden units."""

    T: int
    B: int
    I: int
    H: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read `T,B,I,H`.

        Raises:
            ValueError: unless there are four positive integers, not beyond reason.
        """
        parts = text.split(",")
        if len(parts) != 4:
            raise ValueError(f"shape T,B,I,H takes four integers, got {text!r}")
        try:
            shape = cls(*(int(part) for part in parts))
        except ValueError:
            raise ValueError(f"shape T,B,I,H takes four integers, got {text!r}") from None
        if min(shape) < 1:
            raise ValueError(f"shape T,B,I,H takes positive integers, got {text!r}")
        T, B, I, H = shape
        if max(4 * T * B * max(I, H), 4 * H * (I + H)) > LARGEST:
            raise ValueError(f"shape T,B,I,H = {text} needs arrays of over {LARGEST:,} numbers")
        return shape

    def __str__(self) -> str:
        return ",".join(map(str, self))


@dataclass(frozen=True)
class Suite:
    """A list of shapes and what is done with them.

    Attributes:
        shapes: the shapes, each measured for every cell.
        passes: "forward" is inference; "train" is forward and backward, all gradients.
        stepwise: one step to a call, through the cells, not the layers.
        ragged: sequences of lengths uniform in 1..T, padded to T.
        seconds: what the timing of one case may take, all contenders together.
        total_seconds: what the whole suite may take, compilation not counted.
    """

    shapes: tuple[Shape, ...]
    passes: tuple[str, ...]
    stepwise: bool = False
    ragged: bool = False
    seconds: float = 5.0
    total_seconds: float | None = None


SUITES = {
    "quick": Suite(
        (Shape(100, 1, 40, 64), Shape(28, 128, 28, 128), Shape(100, 16, 128, 256)),
        PASSES,
        seconds=2.5,
        total_seconds=65.0,
    ),
    "stream": Suite(
        (
            Shape(1, 1, 1, 16),
            Shape(1, 1, 32, 32),
            Shape(1, 1, 40, 64),
            Shape(1, 1, 64, 128),
            Shape(1, 1, 128, 128),
            Shape(1, 1, 128, 256),
            Shape(1, 1, 384, 384),
            Shape(1, 1, 256, 512),
        ),
        ("forward",),
        stepwise=True,
    ),
    "sequence": Suite(
        (
            Shape(100, 1, 40, 64),
            Shape(150, 1, 256, 256),
            Shape(25, 1, 512, 512),
            Shape(25, 4, 512, 512),
            Shape(100, 16, 128, 256),
            Shape(100, 64, 128, 128),
            Shape(28, 128, 28, 128),
            Shape(50, 64, 256, 512),
        ),
        ("forward",),
    ),
    "train": Suite(
        (
            Shape(25, 16, 512, 512),
            Shape(150, 64, 256, 256),
            Shape(100, 256, 8, 64),
            Shape(100, 32, 64, 128),
            Shape(784, 16, 1, 128),
            Shape(100, 1, 40, 64),
        ),
        ("train",),
    ),
    "ragged": Suite(
        (Shape(200, 64, 64, 128), Shape(200, 32, 128, 256)),
        PASSES,
        ragged=True,
    ),
}


@dataclass(frozen=True)
class Case:
    """One line of the table: a cell, a shape, a pass, a dtype."""

    suite: str
    cell: str
    shape: Shape
    pass_: str
    dtype: str

    @property
    def stepwise(self) -> bool:
        """Whether a call is one step of a cell."""
        return SUITES[self.suite].stepwise

    @property
    def lengths(self) -> tuple[int, ...] | None:
        """Length of each sequence, the same in every process; None where all are T."""
        if not SUITES[self.suite].ragged:
            return None
        draw = random.Random(0)
        return tuple(draw.randint(1, self.shape.T) for _ in range(self.shape.B))

    @property
    def flops(self) -> int:
        """Floating-point operations of one call, those of the products only.

        A step of one sequence multiplies (G*H, I+H) weights with [x; h], two operations to a
        weight. Steps beyond a sequence's length are not needed and do not count. The backward
        pass has two such products, one for the gradient of [x; h] and one for the weights'.
        """
        T, B, I, H = self.shape
        steps = T * B if self.lengths is None else sum(self.lengths)
        forward = 2 * steps * GATES[self.cell] * H * (I + H)
        return 3 * forward if self.pass_ == "train" else forward

    def __str__(self) -> str:
        return f"{self.cell.upper()} {self.shape} {self.pass_}"


def plan(
    suite: str,
    cells: tuple[str, ...] = CELLS,
    shapes: tuple[Shape, ...] = (),
    passes: tuple[str, ...] = (),
    dtype: str = "float32",
) -> list[Case]:
    """The cases of a suite; `shapes` and `passes` stand in for the suite's own where given.

    Raises:
        ValueError: for a pass or a shape that the suite cannot take.
    """
    chosen = SUITES[suite]
    if chosen.stepwise:
        if "train" in passes:
            raise ValueError(f"suite {suite} times single steps, it has no pass 'train'")
        for shape in shapes:
            if shape.T != 1:
                raise ValueError(f"suite {suite} takes one step to a call: T=1, got {shape}")
    return [
        Case(suite, cell, shape, pass_, dtype)
        for cell in cells
        for shape in shapes or chosen.shapes
        for pass_ in passes or chosen.passes
    ]
