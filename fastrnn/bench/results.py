"""The rows, and the JSON that they become.

    {
      "machine": {
        "cpu": "AMD EPYC ...", "cores": 2, "platform": "Linux-...",
        "features": ["avx2", ...],        what Numba compiles for
        "vector_bytes": 64,
        "threads": 2,                     of every contender
        "load": 0.1,                      the system's load average before the run, or null
        "stops": true,                    whether a contender is stopped while another is timed
        "versions": {"fastrnn": "...", "python": "...", "numba": "...", "torch": "...", ...},
        "caches": {"L1": ..., "L2": ..., "L3": ...},                       bytes
        "probes": {"fma": ..., "L1": ..., "L2": ..., "L3": ..., "memory": ...},
                                          FLOP/s in the run's dtype, then bytes/s, of all threads
        "devices": {"cpu": "", "cuda": "why it cannot be used"}
      },
      "rows": [
        {"suite": "quick", "cell": "lstm", "T": 100, "B": 16, "I": 128, "H": 256,
         "pass": "train",                 or "forward"
         "device": "cpu",                 or "cuda"
         "dtype": "float32",              or "float64", "bfloat16", "int8"; a peer's own
         "threads": 2,                    or fewer than the run's, of a suite that varies them
         "contender": "fastrnn",          or the name of a peer
         "median_s": ..., "p99_s": ...,   seconds of one call
         "gflops": ...,                   of the products, at the median
         "of_peak": ...,                  the same over the multiply-add probe, 0 to 1
         "of_roof": ...,                  the least time the probes allow over the median
         "compile_s": ...,                the first call in a fresh process, less the median
         "samples": 87, "calls": 12,      samples taken, calls in each
         "memory_bytes": ...,             that one call takes of the system, or null
         "single_s": null,                of a suite of single steps, calls timed one by one:
                                          {"p50": ..., "p99": ..., "p99.9": ..., "worst": ...}
         "error": null}                   or why it was not timed; the numbers then are null
      ],
      "definitions": [                    of the suite `cells`
        {"cell": "MinGRU",
         "define_s": ...,                 its file, which may define two, in a fresh process
         "first_s": ..., "cpu_s": ...,    forward and backward from an empty cache, and that in CPU
                                          time, where other programs take their share
         "compiled": 66,                  the functions that were compiled for it
         "again_s": ..., "compiled_again": 0}                     the same in a second process
      ]
    }

A contender that cannot run a case at all (onnxruntime has no backward pass) has no row for it.

A row of the suite `loop` has, in the place of a cell and a shape, "model", "about", "framework",
"cell" and "training"; "contender" is "fastrnn", or the framework for its own layers; and
"shares", of fastrnn's alone, says what part of a step's time goes where (`loop/shares.py`). Where
its "threads" are null, each contender took what it does in the default environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Contender


@dataclass(frozen=True)
class Row:
    """One contender in one case; either `error` is None or the numbers are.

    An error is no fault where a contender ran out of a time limit of its own.
    """

    case: Case
    contender: Contender
    median_s: float | None = None
    p99_s: float | None = None
    compile_s: float | None = None
    of_roof: float | None = None
    of_peak: float | None = None
    samples: int = 0
    calls: int = 0
    memory: int | None = None
    single: Mapping[str, float] | None = None
    error: str | None = None
    fault: bool = True

    @property
    def failed(self) -> bool:
        """Whether its numbers were wrong, or there were none that should have been."""
        return self.error is not None and self.fault

    @property
    def gflops(self) -> float | None:
        """Floating-point operations of the products, 1e9 per second, at the median."""
        return None if self.median_s is None else self.case.flops / self.median_s / 1e9

    def as_json(self) -> dict[str, Any]:
        """The row as the module's docstring shows it."""
        case = self.case
        return {
            "suite": case.suite,
            "cell": case.cell,
            **case.shape._asdict(),
            "pass": case.pass_,
            "device": self.contender.device,
            "dtype": self.contender.dtype(case),
            "threads": case.threads,
            "contender": self.contender.name,
            "median_s": self.median_s,
            "p99_s": self.p99_s,
            "gflops": self.gflops,
            "of_peak": self.of_peak,
            "of_roof": self.of_roof,
            "compile_s": self.compile_s,
            "samples": self.samples,
            "calls": self.calls,
            "memory_bytes": self.memory,
            "single_s": None if self.single is None else dict(self.single),
            "error": self.error,
        }


class AnyRow(Protocol):
    """What rows of all suites have."""

    @property
    def failed(self) -> bool: ...  # noqa: D102

    def as_json(self) -> dict[str, Any]: ...  # noqa: D102


RowT = TypeVar("RowT", bound=AnyRow)


@dataclass(frozen=True)
class Results(Generic[RowT]):
    """All rows of a run, and the machine they were measured on."""

    machine: Mapping[str, Any]
    rows: Sequence[RowT]
    definitions: Sequence[Mapping[str, Any]] = ()

    @property
    def good(self) -> bool:
        """Whether every contender gave the right numbers everywhere."""
        return not any(row.failed for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """The run as the module's docstring shows it."""
        rows = [row.as_json() for row in self.rows]
        for row in rows:
            row["threads"] = row["threads"] or self.machine["threads"]
        found = {"machine": dict(self.machine), "rows": rows}
        return found | ({"definitions": list(self.definitions)} if self.definitions else {})
