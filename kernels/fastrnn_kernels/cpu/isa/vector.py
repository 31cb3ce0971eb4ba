"""Vectors of units as a type of Numba's: equations written for one unit compute a register's.

A cell's functions and those of `cells.functions` know only arithmetic; called with `Vector` values
they become vector instructions one by one, without a loop that LLVM would have to see through.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from fastrnn_kernels.cpu.isa.host import current, for_each
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import data_of, fused_multiply_add, lanes_of, splat, suffix_of

_INDEX = ir.IntType(64)
_FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


class Vector(types.Type):  # type: ignore[misc]
    """A register, or two (`twins.py`), of one float type, of the instruction set at hand.

    It has `count` values.
    """

    def __init__(self, dtype: types.Float, registers: int = 1) -> None:
        self.dtype, self.count = dtype, registers * lanes_of(dtype)
        super().__init__(name=f"{current().name}({dtype} x {self.count})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(_FLOATS[kind.dtype], kind.count))


def dtype_of(kind: types.Type) -> types.Type:
    """The float type of a scalar or of a vector's values."""
    return kind.dtype if isinstance(kind, Vector) else kind


def _common(*kinds: types.Type) -> types.Type | None:
    """The vector among operands that a scalar of any number type may join."""
    vectors = {kind for kind in kinds if isinstance(kind, Vector)}
    scalars = [kind for kind in kinds if not isinstance(kind, Vector)]
    if len(vectors) != 1 or not all(isinstance(kind, types.Number) for kind in scalars):
        return None
    return vectors.pop()


def _widened(context: Any, builder: Any, kind: Any, value: Any, to: types.Type) -> Any:
    """An operand as the type of the result: a number beside a vector fills one."""
    if kind == to or not isinstance(to, Vector):
        return value
    return splat(builder, context.cast(builder, value, kind, to.dtype), context.get_value_type(to))


def _define(function: Any, emit: Callable[..., Any], operands: int) -> None:
    """Give an operator of Python its meaning for vectors."""

    @type_callable(function)
    def _typed(context):  # type: ignore[no-untyped-def]
        if operands == 1:
            return lambda a: _common(a)
        return lambda a, b: _common(a, b)

    def _lowered(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kinds, to = signature.args, signature.return_type
        values = [
            _widened(context, builder, kind, value, to)
            for kind, value in zip(kinds, args, strict=True)
        ]
        return emit(builder, *values)

    if operands == 1:
        lower_builtin(function, Vector)(_lowered)
        return
    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *kinds)(_lowered)


for _operator, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_operator, lambda builder, a, b, _name=_name: getattr(builder, _name)(a, b), 2)
_define(operator.neg, lambda builder, a: builder.fneg(a), 1)


def call(builder: Any, name: str, returns: Any, values: list[Any]) -> Any:
    """Call one of LLVM's functions by its name."""
    kind = ir.FunctionType(returns, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def _math(builder: Any, name: str, *values: Any) -> Any:
    """One of LLVM's functions of floats, for a scalar or a vector."""
    kind = values[0].type
    return call(builder, f"llvm.{name}.{suffix_of(kind)}", kind, list(values))


def elementwise(emit: Callable[..., Any], count: int) -> Any:
    """An intrinsic of `count` operands, scalars of one type or vectors among them."""

    def typed(*kinds: types.Type) -> Any:
        to = _common(*kinds) if any(isinstance(k, Vector) for k in kinds) else kinds[0]

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            values = [
                _widened(context, builder, kind, value, signature.return_type)
                for kind, value in zip(signature.args, args, strict=True)
            ]
            return emit(builder, *values)

        return None if to is None else (to(*kinds), codegen)

    if count == 1:

        @intrinsic
        def one(typingctx, a):  # type: ignore[no-untyped-def]
            return typed(a)

        return one
    if count == 2:

        @intrinsic
        def two(typingctx, a, b):  # type: ignore[no-untyped-def]
            return typed(a, b)

        return two
    if count == 3:

        @intrinsic
        def three(typingctx, a, b, c):  # type: ignore[no-untyped-def]
            return typed(a, b, c)

        return three

    @intrinsic
    def four(typingctx, a, b, c, d):  # type: ignore[no-untyped-def]
        return typed(a, b, c, d)

    return four


#: a * b + c
fma = elementwise(fused_multiply_add, 3)
#: |a|
absolute = elementwise(lambda builder, a: _math(builder, "fabs", a), 1)
#: the square root of a, the nearest number to it
square_root = elementwise(lambda builder, a: _math(builder, "sqrt", a), 1)
#: a with the sign of b
copysign = elementwise(lambda builder, a, b: _math(builder, "copysign", a, b), 2)


def _lanes_from(builder: Any, vectors: tuple[Any, Any], first: int, count: int) -> Any:
    """`count` lanes of two vectors that lie beside each other, from a first one on."""
    numbers = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(first, first + count)))
    return builder.shuffle_vector(*vectors, numbers)


def joined(builder: Any, a: Any, b: Any) -> Any:
    """Two vectors as one."""
    return _lanes_from(builder, (a, b), 0, 2 * a.type.count)


def halves_of(builder: Any, both: Any) -> tuple[Any, Any]:
    """What `joined` was given."""
    half = both.type.count // 2
    first, second = (_lanes_from(builder, (both, both), at, half) for at in (0, half))
    return first, second


#: a number as what x is, a number or a vector, of (x, number)
like = elementwise(lambda builder, x, number: number, 2)
#: c where a <= b, else d; a comparison with NaN is false
where_at_most = elementwise(
    lambda builder, a, b, c, d: builder.select(builder.fcmp_ordered("<=", a, b), c, d), 4
)


def _pointer(builder: Any, data: Any, at: Any, kind: ir.VectorType) -> Any:
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def first_lanes(builder: Any, count: int, many: Any) -> Any:
    """A mask of the first `many` of `count` lanes."""
    number = ir.IntType(32)
    numbers = ir.VectorType(number, count)
    lane = ir.Constant(numbers, list(range(count)))
    return builder.icmp_signed("<", lane, splat(builder, builder.trunc(many, number), numbers))


def load(count: int) -> Callable[..., Any]:
    """A function `(array, at, step)`: `count` vectors, `step` values apart, as a tuple."""

    @intrinsic
    def loaded(typingctx, array, at, step):  # type: ignore[no-untyped-def]
        vector = Vector(array.dtype)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            data = data_of(context, builder, signature.args[0], args[0])
            kind, item = context.get_value_type(vector), signature.args[0].dtype.bitwidth // 8
            values = []
            for k in range(count):
                at_k = builder.add(args[1], builder.mul(args[2], _INDEX(k)))
                values.append(builder.load(_pointer(builder, data, at_k, kind), align=item))
            return context.make_tuple(builder, signature.return_type, values)

        return types.UniTuple(vector, count)(array, types.int64, types.int64), codegen

    return loaded  # type: ignore[no-any-return]


def _placed(context: Any, builder: Any, kinds: Any, args: Any) -> list[tuple[Any, Any]]:
    """Of (array, at, step, ..., values): each value as a vector, and the pointer to its place."""
    data = data_of(context, builder, kinds[0], args[0])
    vector = Vector(kinds[0].dtype)
    pairs = []
    for k, given in enumerate(kinds[-1]):
        at = builder.add(args[1], builder.mul(args[2], _INDEX(k)))
        value = _widened(context, builder, given, builder.extract_value(args[-1], k), vector)
        pairs.append((value, _pointer(builder, data, at, context.get_value_type(vector))))
    return pairs


def store(count: int) -> Callable[..., Any]:
    """A function `(array, at, step, values)` that stores a tuple of `count` vectors.

    A number among them is stored in every lane.
    """

    @intrinsic
    def stored(typingctx, array, at, step, values):  # type: ignore[no-untyped-def]
        if not isinstance(values, types.BaseTuple) or len(values) != count:
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            item = signature.args[0].dtype.bitwidth // 8
            for value, pointer in _placed(context, builder, signature.args, args):
                builder.store(value, pointer, align=item)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, values), codegen

    return stored  # type: ignore[no-any-return]


def add(count: int) -> Callable[..., Any]:
    """As `store`, but each vector is added to what stands there."""

    @intrinsic
    def added(typingctx, array, at, step, values):  # type: ignore[no-untyped-def]
        if not isinstance(values, types.BaseTuple) or len(values) != count:
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            item = signature.args[0].dtype.bitwidth // 8
            for value, pointer in _placed(context, builder, signature.args, args):
                old = builder.load(pointer, align=item)
                builder.store(builder.fadd(old, value), pointer, align=item)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, values), codegen

    return added  # type: ignore[no-any-return]


def load_from_two(first: int, second: int) -> Any:
    """A function `(a, a_at, a_step, b, b_at, b_step)`: vectors of a, then of b, as one tuple."""
    load_a, load_b = load(first), load(second)
    if not first:
        return inlined(lambda a, a_at, a_step, b, b_at, b_step: load_b(b, b_at, b_step))
    if not second:
        return inlined(lambda a, a_at, a_step, b, b_at, b_step: load_a(a, a_at, a_step))
    return inlined(
        lambda a, a_at, a_step, b, b_at, b_step: load_a(a, a_at, a_step) + load_b(b, b_at, b_step)
    )


@for_each
def load_part() -> Callable[..., Any]:
    """A function `(array, at, many)`: the first `many` values at a place, zeros in other lanes.

    No more is read.
    """

    @intrinsic
    def loaded(typingctx, array, at, many):  # type: ignore[no-untyped-def]
        vector = Vector(array.dtype)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            data = data_of(context, builder, signature.args[0], args[0])
            kind, item = context.get_value_type(vector), signature.args[0].dtype.bitwidth // 8
            pointer = _pointer(builder, data, args[1], kind)
            name = f"llvm.masked.load.{suffix_of(kind)}.p0"
            zeros = ir.Constant(kind, [0.0] * kind.count)
            result = cgutils.alloca_once(builder, kind)
            whole = builder.icmp_signed(">=", args[2], _INDEX(kind.count))
            with builder.if_else(whole, likely=True) as (all_lanes, some_lanes):
                with all_lanes:
                    builder.store(builder.load(pointer, align=item), result)
                with some_lanes:
                    values = [
                        pointer,
                        ir.IntType(32)(item),
                        first_lanes(builder, kind.count, args[2]),
                        zeros,
                    ]
                    builder.store(call(builder, name, kind, values), result)
            return builder.load(result)

        return vector(array, types.int64, types.int64), codegen

    return loaded  # type: ignore[no-any-return]


def store_part(count: int) -> Callable[..., Any]:
    """A function `(array, at, step, many, values)` that stores of each vector `many` values.

    As `store`; nothing but the first `many` is written.
    """

    @intrinsic
    def stored(typingctx, array, at, step, many, values):  # type: ignore[no-untyped-def]
        if not isinstance(values, types.BaseTuple) or len(values) != count:
            return None

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            item = signature.args[0].dtype.bitwidth // 8
            kind = context.get_value_type(Vector(signature.args[0].dtype))
            pairs = _placed(context, builder, signature.args, args)
            name = f"llvm.masked.store.{suffix_of(kind)}.p0"
            whole = builder.icmp_signed(">=", args[3], _INDEX(kind.count))
            with builder.if_else(whole, likely=True) as (all_lanes, some_lanes):
                with all_lanes:
                    for value, pointer in pairs:
                        builder.store(value, pointer, align=item)
                with some_lanes:
                    mask = first_lanes(builder, kind.count, args[3])
                    for value, pointer in pairs:
                        values = [value, pointer, ir.IntType(32)(item), mask]
                        call(builder, name, ir.VoidType(), values)
            return context.get_dummy_value()

        number = types.int64
        return types.void(array, number, number, number, values), codegen

    return stored  # type: ignore[no-any-return]
