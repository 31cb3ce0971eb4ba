"""Compiling for other CPUs than this one: nothing that was compiled is run.

A process that does so is good for nothing else. What LLVM compiles for, Numba's own settings tell
(NUMBA_CPU_NAME, NUMBA_CPU_FEATURES); for another kind of machine, `enter` tells it LLVM's name of
that. It comes before all imports of fastrnn, which have Numba ask for it.
"""

import inspect
from typing import Any

import llvmlite.binding as llvm
import llvmlite.binding.targets as targets
import numba
from numba.core.codegen import CPUCodeLibrary
from numba.core.registry import CPUDispatcher


def _compiled(dispatcher: Any, *args: Any) -> int:
    """What is done in place of a call of compiled code: it is compiled for these arguments."""
    code = dispatcher.py_func.__code__
    if code.co_flags & inspect.CO_VARARGS:
        args = (*args[: code.co_argcount], args[code.co_argcount :])
    dispatcher.compile(tuple(numba.typeof(value) for value in args))
    return 0


def _object_alone(library: Any) -> tuple[str, str, tuple[bytes, bytes]]:
    """What is kept of a library: its machine code.

    Numba keeps LLVM's code as well, for functions that inline it: eight times the machine code,
    and half the time of loading both. Who calls a kernel without it calls its machine code, whose
    symbols `disk.py` tells Numba's engine. Raises AttributeError for an engine that cannot be told.
    """
    library.codegen._engine._defined_symbols  # noqa: B018
    name, kind, (code, _) = _serialized(library)
    empty = llvm.parse_assembly(f'target triple = "{library.codegen.magic_tuple()[0]}"')
    return name, kind, (code, empty.as_bitcode())


_serialized = CPUCodeLibrary.serialize_using_object_code


def enter(triple: str = "") -> None:
    """Compile from now on, for this process's life, and run nothing of it.

    triple: LLVM's name of the kind of machine, where it is another than this.
    """
    CPUDispatcher.__call__ = _compiled
    CPUCodeLibrary.serialize_using_object_code = _object_alone
    if triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        for module in (llvm, targets):
            module.get_process_triple = module.get_default_triple = lambda: triple
