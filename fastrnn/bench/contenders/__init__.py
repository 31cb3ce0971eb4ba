"""Who is measured.

Each contender is a module with one function,

    build(case: Case, threads: int, device: str) -> Program

and is only ever imported in a process of its own.
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
        stepwise: whether single steps are all it takes.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ()
    device: str = "cpu"
    passes: tuple[str, ...] = PASSES
    dtypes: tuple[str, ...] = DTYPES
    own: bool = False
    stepwise: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(name for name in self.packages if find_spec(name) is None)

    def takes(self, case: Case) -> bool:
        """Whether it can run a case at all."""
        if self.stepwise and not case.stepwise:
            return False
        return case.pass_ in self.passes and self.dtype(case) in self.dtypes

    def dtype(self, case: Case) -> str:
        """What it computes a case in: of low precision, its peers' column shows float32."""
        return case.dtype if self.own else case.arrays


OWN = Contender("fastrnn", "fastrnn.bench.contenders.fastrnn", own=True)
#: The same steps from a compiled function, as `fastrnn.jit` has them.
COMPILED = Contender(
    "fastrnn.jit", "fastrnn.bench.contenders.compiled", own=True, stepwise=True, passes=("forward",)
)

PEERS = {
    peer.name: peer
    for peer in (
        Contender("torch", "fastrnn.bench.contenders.torch", ("torch",)),
        Contender(
            "onnxruntime",
            "fastrnn.bench.contenders.onnxruntime",
            ("onnxruntime", "onnx"),
            passes=("forward",),
            dtypes=("float32",),  # its recurrent operators have no float64 kernels
        ),
        Contender("numpy", "fastrnn.bench.contenders.numpy"),
    )
}


def peer(text: str) -> Contender:
    """A peer by its name, or `name=module` for an implementation of one's own.

    Raises:
        ValueError: for a name that is neither.
    """
    name, separator, module = text.partition("=")
    if separator and name and module:
        return Contender(name, module, (module.partition(".")[0],))
    if name not in PEERS:
        raise ValueError(
            f"unknown peer {text!r}; there are {', '.join(PEERS)}, or name=module for your own"
        )
    return PEERS[name]
