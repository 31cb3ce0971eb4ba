"""Denormal numbers as zeros, for as long as a kernel runs.

A state that decays through silence would else pass through them, where processors are tens
of times slower.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrnn_kernels.cpu.isa.host import current

#: Of the x86's control word: results to zero, operands to zero. Of the ARM's: both.
_X86, _ARM = 0x8040, 1 << 24

_NUMBER, _LONG = ir.IntType(32), ir.IntType(64)


def _function(builder: Any, name: str, returns: Any, *kinds: Any) -> Any:
    kind = ir.FunctionType(returns, kinds)
    return cgutils.get_or_insert_function(builder.module, kind, name)


@intrinsic
def flush(typingctx):  # type: ignore[no-untyped-def]
    """Take denormals for zeros from now on; what `restore` needs."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if current().mode == "x86":
            with builder.goto_entry_block():
                place = builder.alloca(_NUMBER, size=2)
            old, new = place, builder.gep(place, [_NUMBER(1)])
            raw = ir.IntType(8).as_pointer()
            store = _function(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), raw)
            load = _function(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), raw)
            builder.call(store, [builder.bitcast(old, raw)])
            value = builder.load(old)
            builder.store(builder.or_(value, _NUMBER(_X86)), new)
            builder.call(load, [builder.bitcast(new, raw)])
            return builder.zext(value, _LONG)
        if current().mode == "arm":
            get = _function(builder, "llvm.aarch64.get.fpcr", _LONG)
            value = builder.call(get, [])
            put = _function(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), _LONG)
            builder.call(put, [builder.or_(value, _LONG(_ARM))])
            return value
        return _LONG(0)

    return types.int64(), codegen


@intrinsic
def restore(typingctx, old):  # type: ignore[no-untyped-def]
    """Take denormals again as before `flush`."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if current().mode == "x86":
            with builder.goto_entry_block():
                place = builder.alloca(_NUMBER)
            builder.store(builder.trunc(args[0], _NUMBER), place)
            raw = ir.IntType(8).as_pointer()
            load = _function(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), raw)
            builder.call(load, [builder.bitcast(place, raw)])
        elif current().mode == "arm":
            put = _function(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), _LONG)
            builder.call(put, args)
        return context.get_dummy_value()

    return types.void(types.int64), codegen
