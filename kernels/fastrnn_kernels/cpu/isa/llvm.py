"""Vectors in LLVM's terms: types, multiply-adds, splats, pointers to what arrays hold."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.host import current

#: Products of a chain to a turn of its loop. With 8, loads of one instruction lie so far apart
#: that the hardware no longer fetches ahead: half the bandwidth (seen, Zen 5).
UNROLLED = 2

_INDEX = ir.IntType(64)
_ITEM_BYTES = {types.float32: 4, types.float64: 8}


def lanes_of(dtype: types.Type) -> int:
    """How many values of a type one vector register holds."""
    return current().lanes(_ITEM_BYTES[dtype])


def data_of(context: Any, builder: Any, array_type: types.Type, array: Any) -> Any:
    """The pointer to an array's values, or the one that `pointer` gave."""
    if isinstance(array_type, types.CPointer):
        return array
    return context.make_array(array_type)(context, builder, value=array).data


def suffix_of(kind: Any) -> str:
    """What LLVM's names of functions of floats end in: f32, v8f64."""
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    suffix = "f32" if isinstance(element, ir.FloatType) else "f64"
    return f"v{kind.count}{suffix}" if isinstance(kind, ir.VectorType) else suffix


def fused_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Multiply and add, rounded once where the instruction set can.

    Where it cannot, the library's emulation would cost a hundred times the two roundings.
    """
    if not current().fused:
        return builder.fadd(builder.fmul(a, b), c)
    kind = a.type
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, (kind, kind, kind)), f"llvm.fma.{suffix_of(kind)}"
    )
    return builder.call(function, (a, b, c))


def unroll(builder: Any, branch: Any) -> None:
    """Have the loop of a backward branch unrolled UNROLLED times."""
    module = builder.module
    option = module.add_metadata(["llvm.loop.unroll.count", ir.Constant(ir.IntType(32), UNROLLED)])
    loop = ir.MDValue(module, [option], name=str(len(module.metadata)))
    loop.operands = (loop, option)  # LLVM knows a loop's metadata by their naming themselves
    branch.set_metadata("llvm.loop", loop)


def splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """A vector with one value in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _INDEX(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, one, zeros)


@intrinsic
def pointer(typingctx, array):  # type: ignore[no-untyped-def]
    """Where an array's values begin, or the number that stands for them.

    A call takes one in place of the array's seven fields.
    """
    if isinstance(array, types.Integer):
        return array(array), lambda context, builder, signature, args: args[0]

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return data_of(context, builder, signature.args[0], args[0])

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def flat(typingctx, array):  # type: ignore[no-untyped-def]
    """A C-contiguous array as one row of values."""
    row = types.Array(array.dtype, 1, "C")

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        # Needed where something is compiled, and a third of what importing fastrnn adds to Numba.
        from numba.np.arrayobj import populate_array

        given = context.make_array(signature.args[0])(context, builder, value=args[0])
        made = context.make_array(signature.return_type)(context, builder)
        # Without a reference of its own: it lives no longer than the one it is made from.
        populate_array(
            made,
            data=given.data,
            shape=[given.nitems],
            strides=[given.itemsize],
            itemsize=given.itemsize,
            meminfo=None,
        )
        return made._getvalue()

    return row(array), codegen


@intrinsic
def first_on_line(typingctx, array):  # type: ignore[no-untyped-def]
    """The index of the first value of an array that begins a cache line of 64 bytes."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = data_of(context, builder, signature.args[0], args[0])
        behind = builder.and_(builder.neg(builder.ptrtoint(data, _INDEX)), _INDEX(63))
        return builder.udiv(behind, _INDEX(_ITEM_BYTES[signature.args[0].dtype]))

    return types.int64(array), codegen


@intrinsic
def lanes(typingctx, array):  # type: ignore[no-untyped-def]
    """Lanes of a vector register for the array's type, a constant once compiled."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _INDEX(lanes_of(signature.args[0].dtype))

    return types.int64(array), codegen


def fetch_line(builder: Any, address: Any) -> None:
    """Ask for the cache line at an address, which need not be valid."""
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, keep, data = number(0), number(3), number(1)
    builder.call(function, [builder.bitcast(address, cgutils.voidptr_t), read, keep, data])


@intrinsic
def fetch(typingctx, array, at):  # type: ignore[no-untyped-def]
    """Ask for the cache line of an array's value at an index, which need not be valid."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = data_of(context, builder, signature.args[0], args[0])
        fetch_line(builder, builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, at), codegen
