"""What is measured: suites, shapes, and the floating-point operations a case takes.

No contender is imported, so that the command line can offer the suites' names without them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fastrnn.cells import FILES
from fastrnn.models.classes import entry_of
from fastrnn_kernels.cells.cell import Cell

#: The cells of a run that names none: those that all contenders have.
CELLS = ("rnn", "lstm", "gru")
#: Cells written with `fastrnn.cell`, and the built-in ones that they are measured beside.
WRITTEN = {f"fastrnn.bench.written:Written{cell.upper()}": cell for cell in ("lstm", "gru")}
PASSES = ("forward", "train")
DTYPES = ("float32", "float64", "bfloat16", "int8")
#: Bytes of a weight.
ITEM_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "int8": 1}
#: Low precision: arrays, states and sums are float32.
LOW = ("bfloat16", "int8")


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
        shapes: the shapes, each measured for every cell, or a list for each.
        passes: "forward" is inference; "train" is forward and backward, all gradients.
        stepwise: one step to a call, through the cells, not the layers.
        ragged: sequences of lengths uniform in 1..T, padded to T.
        seconds: what the timing of one case may take, all contenders together.
        total_seconds: what the whole suite may take, compilation not counted.
        on_threads: a shape that is also measured with 1, 2, 4, ... threads, fewer than the
            run's; None for none.
        cells: those of a run that names none.
        written: suites with whose shapes and passes cells of `WRITTEN` are measured.
    """

    shapes: tuple[Shape, ...] | Mapping[str, tuple[Shape, ...]]
    passes: tuple[str, ...]
    stepwise: bool = False
    ragged: bool = False
    seconds: float = 5.0
    total_seconds: float | None = None
    on_threads: Shape | None = None
    cells: tuple[str, ...] = CELLS
    written: tuple[str, ...] = ()

    def shapes_of(self, cell: str) -> tuple[Shape, ...]:
        """The shapes that a cell is measured with; none where each has a list, and it has not."""
        return self.shapes.get(cell, ()) if isinstance(self.shapes, Mapping) else self.shapes


#: Of the suite `cells`: the shape of all, that of long sequences, and whose these are.
OF_CELLS, LONG = Shape(100, 32, 128, 128), Shape(4096, 1, 256, 256)
SCANNED = ("MinGRU", "MinGRULog")

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
    # DeepBench's hidden sizes, batch 32 of its lists, I = H; the GRUs at T = 187.
    "deepbench": Suite(
        {
            "rnn": tuple(Shape(50, 32, H, H) for H in (1760, 2048, 2560)),
            "lstm": (
                Shape(150, 32, 256, 256),
                Shape(25, 32, 512, 512),
                Shape(25, 32, 1024, 1024),
                Shape(50, 32, 1536, 1536),
                Shape(25, 32, 2048, 2048),
                Shape(25, 32, 4096, 4096),
            ),
            "gru": tuple(Shape(187, 32, H, H) for H in (512, 1024, 1536, 2048, 2560, 2816)),
        },
        PASSES,
    ),
    # One axis at a time: T, then B, then H, then threads.
    "scaling": Suite(
        (
            *(Shape(T, 2, 32, 64) for T in (100, 1_000, 10_000, 100_000)),
            *(Shape(20, B, 128, 256) for B in (1, 4, 16, 64, 256, 1_024, 4_096)),
            *(Shape(50, 16, 128, H) for H in (64, 128, 256, 512, 1_024)),
        ),
        PASSES,
        seconds=2.5,
        on_threads=Shape(100, 16, 128, 256),
    ),
    # Cells that are defined by their equations; of the minGRUs also one long sequence.
    "cells": Suite(
        {cell: (OF_CELLS, LONG) if cell in SCANNED else (OF_CELLS,) for cell in FILES},
        PASSES,
        seconds=2.5,
        cells=(*FILES, *WRITTEN),
        written=("sequence", "train", "stream"),
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
    threads: int | None = None  # where they are not the run's

    @property
    def equations(self) -> Cell:
        """The kernels' cell."""
        return entry_of(self.cell).cell

    @property
    def gates(self) -> int:
        """G."""
        return self.equations.G

    @property
    def states(self) -> int:
        """How many states the cell has, h among them."""
        return self.equations.N

    @property
    def arrays(self) -> str:
        """The float type of all arrays."""
        return "float32" if self.dtype in LOW else self.dtype

    @property
    def compute(self) -> str:
        """What fastrnn multiplies in; a stream's weights are widened first."""
        return self.arrays if self.stepwise else self.dtype

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

        A step of one sequence multiplies (G*H, I) weights with x and (GH*H, H) with h, GH gates
        that have an h-part, two operations to a weight. Steps beyond a sequence's length are not
        needed and do not count. The backward pass has two such products, one for the gradient of
        [x; h] and one for the weights'.
        """
        T, B, I, H = self.shape
        steps = T * B if self.lengths is None else sum(self.lengths)
        forward = 2 * steps * H * (self.gates * I + self.equations.GH * H)
        return 3 * forward if self.pass_ == "train" else forward

    @property
    def title(self) -> str:
        """The cell as tables call it."""
        return self.cell.upper() if self.cell.islower() else self.cell.rpartition(":")[2]

    def __str__(self) -> str:
        on = "" if self.threads is None else f" on {self.threads}"
        return f"{self.title} {self.shape} {self.pass_}{on}"


def cases_of(
    suite: str,
    cells: tuple[str, ...] = (),
    shapes: tuple[Shape, ...] = (),
    passes: tuple[str, ...] = (),
    dtype: str = "float32",
    threads: int = 1,
) -> list[Case]:
    """The cases of a suite on `threads`; cells, shapes and passes stand in for the suite's own.

    Raises:
        ValueError: for a pass or a shape that the suite cannot take, and a cell it has none for.
    """
    chosen = SUITES[suite]
    cells = cells or chosen.cells
    if chosen.written and not shapes:
        beside = tuple(cell for cell in cells if cell in WRITTEN)
        cells = tuple(cell for cell in cells if cell not in WRITTEN)
        own = _cases(suite, chosen, cells, shapes, passes, dtype, threads) if cells else []
        parts = [
            part for part in chosen.written if not passes or {*SUITES[part].passes} & {*passes}
        ]
        if beside:
            own += [case for part in parts for case in cases_of(part, beside, dtype=dtype)]
        return own
    return _cases(suite, chosen, cells, shapes, passes, dtype, threads)


def _cases(
    suite: str,
    chosen: Suite,
    cells: tuple[str, ...],
    shapes: tuple[Shape, ...],
    passes: tuple[str, ...],
    dtype: str,
    threads: int,
) -> list[Case]:
    if chosen.stepwise:
        if "train" in passes:
            raise ValueError(f"suite {suite} times single steps, it has no pass 'train'")
        for shape in shapes:
            if shape.T != 1:
                raise ValueError(f"suite {suite} takes one step to a call: T=1, got {shape}")
    if dtype == "int8" and not chosen.stepwise:
        raise ValueError(f"int8 is how a stream's weights are stored, suite {suite} has no streams")
    if dtype in LOW:
        if "train" in passes or "forward" not in chosen.passes:
            raise ValueError(f"{dtype} is for inference: it has no pass 'train'")
        passes = ("forward",)
    for cell in cells:
        if not (shapes or chosen.shapes_of(cell)):
            raise ValueError(f"suite {suite} has no shapes for {cell}: name some")
    fewer = [2**n for n in range(threads.bit_length()) if 2**n < threads]
    return [
        Case(suite, cell, shape, pass_, dtype, on)
        for cell in cells
        for shape, on in (
            *((shape, None) for shape in shapes or chosen.shapes_of(cell)),
            *((chosen.on_threads, on) for on in (*fewer, None) if chosen.on_threads and not shapes),
        )
        for pass_ in passes or chosen.passes
    ]
