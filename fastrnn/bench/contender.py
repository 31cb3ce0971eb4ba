"""What a contender is: a module that builds a program for a case, and what it can do.

Its one function is

    build(case: Case, threads: int, device: str) -> Program

and it is only ever imported in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from fastrnn.bench.cases import DTYPES, PASSES, Case
from fastrnn.bench.data import Array, Sample


class Program(Protocol):
    """One case, ready to run. Only `run` is timed.

    More methods may be there: `rewind(loaded)`, for who keeps a state between calls, goes back
    to the one of an input before its answer is compared; `release()` gives back memory that
    waits for the next call; `repeat(calls)` makes so many calls, with one input after the
    other, for who is not called from Python.
    """

    def load(self, sample: Sample) -> Any:
        """The input in the contender's own kind of array."""

    def run(self, loaded: Any) -> Any:
        """One call: a step, a sequence, or a sequence and its backward pass."""

    def read(self, result: Any) -> dict[str, Array]:
        """What `run` gave as NumPy arrays, named as `data.answer` names them."""


@dataclass(frozen=True)
class Contender:
    """Who, where its module is, and what it can do.

    Attributes:
        name: what the tables call it.
        module: the module that has `build`.
        packages: modules that must be installed.
        device: "cpu" or "cuda".
        passes: the passes it has.
        dtypes: the dtypes it takes.
        own: whether it is fastrnn itself.
        low: types of low precision that it computes inference over whole sequences in by itself.
        stepwise: whether single steps are all it takes; ragged: whether it takes ragged batches.
        cells: the cells it has; None for all.
        without: of these, the cells that it is not measured with.
        limit: seconds after which its first answer is no longer waited for, as its compiling is
            known to take long; that is no fault then. None for the run's own limit, a fault.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ()
    device: str = "cpu"
    passes: tuple[str, ...] = PASSES
    dtypes: tuple[str, ...] = DTYPES
    own: bool = False
    low: tuple[str, ...] = ()
    stepwise: bool = False
    ragged: bool = True
    cells: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    limit: float | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(name for name in self.packages if find_spec(name) is None)

    def takes(self, case: Case) -> bool:
        """Whether it can run a case at all."""
        if self.stepwise and not case.stepwise:
            return False
        if not self.ragged and (case.stepwise or case.lengths is not None):
            return False
        if not self.has(case.cell):
            return False
        return case.pass_ in self.passes and self.dtype(case) in self.dtypes

    def has(self, cell: str) -> bool:
        """Whether it has a cell."""
        return cell not in self.without and (self.cells is None or cell in self.cells)

    def dtype(self, case: Case) -> str:
        """What it computes a case in: float32, where it has no low precision of its own."""
        if self.own:
            return case.dtype
        low = case.dtype in self.low and case.pass_ == "forward" and not case.stepwise
        return case.dtype if low else case.arrays
