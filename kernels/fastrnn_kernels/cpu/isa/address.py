"""Addresses of memory as integers, for compiled code that is called from outside of Numba."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.llvm import data_of

_INDEX = ir.IntType(64)
_WORDS = types.CPointer(types.int64)


def _pointer(builder: Any, address: Any, at: Any, kind: Any = _INDEX) -> Any:
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [at])


@intrinsic
def word(typingctx, address, at):  # type: ignore[no-untyped-def]
    """The word of 64 bits, so many words behind an address."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, *args))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def short_word(typingctx, address, at):  # type: ignore[no-untyped-def]
    """The word of 32 bits, so many of them behind an address."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0], args[1], ir.IntType(32)))

    return types.int32(types.int64, types.int64), codegen


@intrinsic
def set_word(typingctx, address, at, value):  # type: ignore[no-untyped-def]
    """Write a word."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[2], _pointer(builder, *args[:2]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def words(typingctx, address):  # type: ignore[no-untyped-def]
    """A pointer to the words at an address, as `atomic` takes it."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], _INDEX.as_pointer())

    return _WORDS(types.int64), codegen


def values(dtype: types.Type) -> Callable[..., Any]:
    """A function of an address: a pointer to the values of a type that lie there."""

    @intrinsic
    def pointer(typingctx, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(dtype)(types.int64), codegen

    return pointer  # type: ignore[no-any-return]


@intrinsic
def address_of(typingctx, array):  # type: ignore[no-untyped-def]
    """Where an array's values begin, or where a pointer points to."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ptrtoint(data_of(context, builder, signature.args[0], args[0]), _INDEX)

    return types.int64(array), codegen


@intrinsic
def moved(typingctx, pointer, at):  # type: ignore[no-untyped-def]
    """A pointer so many values further on."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), codegen


def on_stack(dtype: types.Type, count: int) -> Callable[[], Any]:
    """A function without arguments: a pointer to `count` values on the stack."""

    @intrinsic
    def made(typingctx):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind = context.get_value_type(dtype)
            with builder.goto_entry_block():
                memory = builder.alloca(kind, size=_INDEX(count))
                memory.align = 64
            return memory

        return types.CPointer(dtype)(), codegen

    return made  # type: ignore[no-any-return]


def _native(result: types.Type) -> Callable[..., Any]:
    @intrinsic
    def called(typingctx, address, arguments):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kinds = tuple(signature.args[1])
            values = [builder.extract_value(args[1], k) for k in range(len(kinds))]
            convention = context.call_conv
            kind = convention.get_function_type(result, kinds)
            function = builder.inttoptr(args[0], kind.as_pointer())
            # What is called so raises nothing: the status says nothing.
            _, value = convention.call_function(builder, function, result, kinds, values)
            return context.get_dummy_value() if result == types.void else value

        return result(types.int64, arguments), codegen

    return called  # type: ignore[no-any-return]


#: `(address, arguments)`: call a function that Numba has compiled, of integers and without a
#: result, by its address.
call_native = _native(types.void)
#: The same of one whose result is an integer.
call_native_number = _native(types.int64)


def call_c(result: types.Type, kinds: tuple[types.Type, ...]) -> Callable[..., Any]:
    """A function `(address, arguments)` that calls a C function of these types."""

    @intrinsic
    def called(typingctx, address, arguments):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            values = [builder.extract_value(args[1], k) for k in range(len(kinds))]
            returned = ir.VoidType() if result == types.void else context.get_value_type(result)
            kind = ir.FunctionType(returned, [context.get_value_type(kind) for kind in kinds])
            value = builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
            return context.get_dummy_value() if result == types.void else value

        return result(types.int64, types.Tuple(kinds)), codegen

    return called  # type: ignore[no-any-return]
