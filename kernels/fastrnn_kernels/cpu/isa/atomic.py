"""Words of memory that threads share, and ways to wait for them, inside compiled code.

Words lie in an array of int64 or behind a pointer to one.
"""

import ctypes
import sys
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.host import FEATURES
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import data_of

#: Looks at a word before a nap: 100 µs and more. That has to be longer than a nap, or one
#: thread's nap would send the next to sleep, and so on for all steps.
LOOKS = 10_000


def _nap_function() -> tuple[int, int]:
    """The address of a function of the system that sleeps, and its argument for a nap."""
    if sys.platform == "win32":
        function, briefly = ctypes.WinDLL("kernel32").Sleep, 0
    else:
        function, briefly = ctypes.CDLL(None).usleep, 20
    return ctypes.cast(function, ctypes.c_void_p).value or 0, briefly


_address, _BRIEFLY = _nap_function()
llvm.add_symbol("fastrnn_nap", _address)


def _word(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The address of the word that the first two arguments, array and index, name."""
    return builder.gep(data_of(context, builder, signature.args[0], args[0]), [args[1]])


@intrinsic
def add(typingctx, words, at, number):  # type: ignore[no-untyped-def]
    """Add to a word and return what it was; what was written before is seen by its readers."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = _word(context, builder, signature, args)
        return builder.atomic_rmw("add", word, args[2], "acq_rel")

    return types.int64(words, types.int64, types.int64), codegen


@intrinsic
def load(typingctx, words, at):  # type: ignore[no-untyped-def]
    """Read a word, and with it all that was written before the word was."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_word(context, builder, signature, args), "acquire", 8)

    return types.int64(words, types.int64), codegen


@intrinsic
def store(typingctx, words, at, number):  # type: ignore[no-untyped-def]
    """Write a word; who reads it sees all that was written before."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = _word(context, builder, signature, args)
        builder.store_atomic(args[2], word, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), codegen


@intrinsic
def replace(typingctx, words, at, old, new):  # type: ignore[no-untyped-def]
    """Write a word if it still is `old`; whether it was."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        word = _word(context, builder, signature, args)
        found = builder.cmpxchg(word, args[2], args[3], "acq_rel", "acquire")
        return builder.extract_value(found, 1)

    return types.boolean(words, types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):  # type: ignore[no-untyped-def]
    """Leave the core's units to others for a moment, where there is an instruction for it."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        nothing, number = ir.VoidType(), ir.IntType(32)
        if "sse2" in FEATURES:
            kind, name, values = ir.FunctionType(nothing, []), "llvm.x86.sse2.pause", []
        elif "neon" in FEATURES:
            kind, name = ir.FunctionType(nothing, [number]), "llvm.aarch64.hint"
            values = [number(1)]
        else:
            return context.get_dummy_value()
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _nap(typingctx):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(number, [number]), "fastrnn_nap"
        )
        builder.call(function, [number(_BRIEFLY)])
        return context.get_dummy_value()

    return types.void(), codegen


@inlined
def wait(looks):  # type: ignore[no-untyped-def]
    """Let a moment pass before the next look, a short nap once there were many; looks so far."""
    pause()
    if looks > LOOKS:
        _nap()
    return looks + 1
