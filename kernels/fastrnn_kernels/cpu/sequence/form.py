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


def reading(form: Form, product: Any) -> Any:
    """A product of what panels read of rows: `(reach, n, at, *arguments of the product)`.

    Of a dense R it is the product itself, and `at` is 0. Of blocks, panel n reads rows from its
    reach's first on, those `at` taken for row 0, and as many as it has.
    """
    if not form.blocked:

        @inlined
        def whole(  # type: ignore[no-untyped-def]
            reach, n, at, unit, m, out, out_at, out_step, init, init_at, init_step,
            rows, rows_at, rows_first, step, panel, panel_at, panel_step, count,
        ):  # fmt: skip
            product(
                unit, m, out, out_at, out_step, init, init_at, init_step,
                rows, rows_at, rows_first, step, panel, panel_at, panel_step, count,
            )  # fmt: skip

        return whole

    @inlined
    def of_blocks(  # type: ignore[no-untyped-def]
        reach, n, at, unit, m, out, out_at, out_step, init, init_at, init_step,
        rows, rows_at, rows_first, step, panel, panel_at, panel_step, count,
    ):  # fmt: skip
        product(
            unit, m, out, out_at, out_step, init, init_at, init_step,
            rows[at + reach[n, 0] :], rows_at, rows_first, step,
            panel, panel_at, panel_step, reach[n, 1],
        )  # fmt: skip

    return of_blocks


def reach_of(form: Form) -> tuple[Any, Any]:
    """What panels read, as two functions.

    `(given)`: the reach of panels; of a dense R some array. `(given, whole)`: the rows that panels
    hold; `whole` of a dense R.
    """
    if form.blocked:
        return inlined(lambda given: given.reach), inlined(lambda given, whole: given.depth)
    return inlined(lambda given: given.h_panels), inlined(lambda given, whole: whole)
