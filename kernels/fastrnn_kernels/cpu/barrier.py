"""A barrier for threads that compute one step together, inside compiled code.

It spins, as the others are a fraction of a microsecond away, and sleeps in short naps once
they are not: a member may have lost its CPU.
"""

import ctypes
import sys

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastrnn_kernels.cpu.host import FEATURES
from fastrnn_kernels.cpu.simd import data_of

#: Looks at the others before a nap: 100 µs and more. That has to be longer than a nap, or one
#: member's nap would send the next to sleep, and so on for all steps.
LOOKS = 10_000
#: Arrivals that no number of steps reaches: set by who gives up, it lets all others pass.
_GIVEN_UP = 1 << 60

_INDEX = ir.IntType(64)


def _nap_function() -> tuple[int, int]:
    """The address of a function of the system that sleeps, and its argument for a nap."""
    if sys.platform == "win32":
        function, briefly = ctypes.WinDLL("kernel32").Sleep, 0
    else:
        function, briefly = ctypes.CDLL(None).usleep, 20
    return ctypes.cast(function, ctypes.c_void_p).value or 0, briefly


_address, _BRIEFLY = _nap_function()
llvm.add_symbol("fastrnn_nap", _address)


@intrinsic
def _arrive(typingctx, sync, count):  # type: ignore[no-untyped-def]
    """Count an arrival; what was written before is seen by those who wait for it."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        counter = data_of(context, builder, signature.args[0], args[0])
        builder.atomic_rmw("add", counter, args[1], "acq_rel")
        return context.get_dummy_value()

    return types.void(sync, types.int64), codegen


@intrinsic
def _arrivals(typingctx, sync):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        counter = data_of(context, builder, signature.args[0], args[0])
        return builder.load_atomic(counter, "acquire", 8)

    return types.int64(sync), codegen


@intrinsic
def _pause(typingctx):  # type: ignore[no-untyped-def]
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


def new() -> NDArray[np.int64]:
    """The memory of a barrier."""
    return np.zeros(1, np.int64)


@njit(nogil=True)
def give_up(sync: NDArray[np.int64]) -> None:
    """Let all pass, now and from now on: somebody will not come. Their results are void."""
    _arrive(sync, _GIVEN_UP)


@njit(error_model="numpy")
def _wait(sync, wanted):  # type: ignore[no-untyped-def]
    _arrive(sync, 1)
    looks = 0
    while _arrivals(sync) < wanted:
        looks += 1
        _pause()
        if looks > LOOKS:
            _nap()


@njit(forceinline=True)
def meet(sync, members, phase):  # type: ignore[no-untyped-def]
    """Wait until all members have come for the next phase; its number."""
    if members > 1:
        _wait(sync, (phase + 1) * members)
    return phase + 1
