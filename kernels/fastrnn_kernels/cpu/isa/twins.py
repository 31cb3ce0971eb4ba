"""Two registers as one value: no operation on one of them waits for the other's.

Equations are long chains of operations that wait for each other; a processor looks a few hundred
instructions ahead, which are those of one register. On two it does both meanwhile, and constants
are fetched once for both.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.vector import (
    Vector,
    halves_of,
    joined,
    load_from_two,
    store,
)


@intrinsic
def beside(typingctx, a, b):  # type: ignore[no-untyped-def]
    """Two tuples of registers as one of twins."""
    if a != b or not all(isinstance(kind, Vector) for kind in a):
        return None
    twins = types.Tuple([Vector(kind.dtype, 2) for kind in a])

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        values = [
            joined(builder, *(builder.extract_value(arg, k) for arg in args)) for k in range(len(a))
        ]
        return context.make_tuple(builder, signature.return_type, values)

    return twins(a, b), codegen


def _half(which: int) -> Any:
    @intrinsic
    def half(typingctx, twins):  # type: ignore[no-untyped-def]
        kinds = [Vector(kind.dtype) if isinstance(kind, Vector) else kind for kind in twins]

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            values = []
            for k, kind in enumerate(twins):
                value = builder.extract_value(args[0], k)
                both = isinstance(kind, Vector)
                values.append(halves_of(builder, value)[which] if both else value)
            return context.make_tuple(builder, signature.return_type, values)

        return types.Tuple(kinds)(twins), codegen

    return half


#: Of a tuple of twins the first registers, and the second ones. Numbers among them stay.
first_of, second_of = _half(0), _half(1)


def load_twins_from_two(first: int, second: int) -> Any:
    """As `load_from_two`: `(a, a_at, other_a_at, a_step, b, b_at, other_b_at, b_step)`."""
    load_one = load_from_two(first, second)
    return inlined(
        lambda a, a_at, other_a_at, a_step, b, b_at, other_b_at, b_step: beside(
            load_one(a, a_at, a_step, b, b_at, b_step),
            load_one(a, other_a_at, a_step, b, other_b_at, b_step),
        )
    )


def store_twins(count: int) -> Any:
    """A function `(array, at, other_at, step, twins)` that stores each at its place."""
    store_one = store(count)

    @inlined
    def stored(array, at, other_at, step, twins):  # type: ignore[no-untyped-def]
        store_one(array, at, step, first_of(twins))
        store_one(array, other_at, step, second_of(twins))

    return stored


@inlined
def next_vector(row: int, vector: int, vectors: int) -> tuple[int, int]:
    """What comes behind a vector of a row that has so many: the next one, or the next row's."""
    if vector + 1 < vectors:
        return row, vector + 1
    return row + 1, vector * 0  # of the same type
