"""What a layer has beside its cell that its kernels are compiled for."""

from collections import namedtuple
from typing import Any, NamedTuple

from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.product.weights import Weights


class Form(NamedTuple):
    """What kernels are compiled for; of the usual form, they are as if there were no other.

    blocked: R is made of blocks. norm: "layer" or "rms" between products and gates, or "".
    masked: R multiplies h times a mask, and what late gates have in its place times that.
    """

    blocked: bool = False
    norm: str = ""
    masked: bool = False

    @property
    def suffix(self) -> str:
        """What names of kernels have of it."""
        norm = f"-{self.norm}-norm" if self.norm else ""
        return "-blocks" * self.blocked + norm + "-masked" * self.masked

    @staticmethod
    def of(weights: Weights, masked: bool = False) -> "Form":
        """That of a layer."""
        return Form(weights.blocks > 1, weights.norm, masked)


PLAIN = Form()
#: Arguments that passes have where R is made of blocks: reach (panels, 2), as `Reach.elements`, and
#: depth, as `Reach`.
OF_BLOCKS = "reach", "depth"


def more_arguments(fields: Any, form: Form, of_norm: tuple[str, ...]) -> Any:
    """A class of arguments, with those of the form behind its own."""
    more = OF_BLOCKS * form.blocked + (of_norm if form.norm else ())
    if not more:
        return fields
    return namedtuple(f"{fields.__name__}OfForm", (*fields._fields, *more))


def reach_of(form: Form) -> tuple[Any, Any]:
    """What panels read of rows, as two functions.

    `(given, rows, at, n, depth)`: of panel n the rows, with those `at` taken for the first, from
    where it reads them, and how many; a dense R's reads `depth`, and `at` is 0.
    `(given, whole)`: the most of them; `whole` of a dense R.
    """
    if not form.blocked:
        read, depth = lambda given, rows, at, n, depth: (rows, depth), lambda given, whole: whole
        return inlined(read), inlined(depth)

    @inlined
    def read_of_blocks(given, rows, at, n, depth):  # type: ignore[no-untyped-def]
        return rows[at + given.reach[n, 0] :], given.reach[n, 1]

    return read_of_blocks, inlined(lambda given, whole: given.depth)
