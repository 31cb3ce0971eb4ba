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
from numba.core.registry import CPUDispatcher


def _compiled(dispatcher: Any, *args: Any) -> int:
    """What is done in place of a call of compiled code: it is compiled for these arguments."""
    code = dispatcher.py_func.__code__
    if code.co_flags & inspect.CO_VARARGS:
        args = (*args[: code.co_argcount], args[code.co_argcount :])
    dispatcher.compile(tuple(numba.typeof(value) for value in args))
    return 0


def enter(triple: str = "") -> None:
    """Compile from now on, for this process's life, and run nothing of it.

    triple: LLVM's name of the kind of machine, where it is another than this.
    """
    CPUDispatcher.__call__ = _compiled
    if triple:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        for module in (llvm, targets):
            module.get_process_triple = module.get_default_triple = lambda: triple
