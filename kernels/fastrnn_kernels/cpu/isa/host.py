"""The instruction set that kernels are made for: this host's, or another one for a while."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, wraps
from typing import Any, TypeVar

import llvmlite.binding as llvm
from numba.core import config

from fastrnn_kernels.cpu.isa.instruction_set import (
    AMX,
    AVX2,
    AVX512,
    AVX512_BF16,
    NEON,
    SIMD128,
    SSE2,
    InstructionSet,
)

_Made = TypeVar("_Made")


def _features() -> frozenset[str]:
    """The vector features that kernels may use: the host's, or what the user set for Numba."""
    found = _told()
    if AMX.needs <= found and not _may_use_tiles():
        return frozenset(name for name in found if not name.startswith("amx"))
    return found


def _told() -> frozenset[str]:
    if config.CPU_FEATURES is not None:
        asked = str(config.CPU_FEATURES).split(",")
        return frozenset(name[1:] for name in asked if name.startswith("+"))
    try:
        found = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on this kind of host
        return frozenset()
    return frozenset(name for name, present in found.items() if present)


def _may_use_tiles() -> bool:
    """Ask Linux for the matrix unit, once for all threads of this process and its children.

    Who uses it without its leave is ended.
    """
    if sys.platform != "linux":
        return False
    arch_prctl, request, tile_data = 158, 0x1023, 18
    try:
        return int(ctypes.CDLL(None).syscall(arch_prctl, request, tile_data)) == 0
    except (OSError, AttributeError):
        return False


def _name() -> str:
    """LLVM's name of the CPU that Numba compiles for."""
    return str(config.CPU_NAME or llvm.get_host_cpu_name())


def _found(features: frozenset[str], name: str) -> InstructionSet:
    """The widest of the instruction sets that features tell of."""
    if "neon" in features:
        return NEON
    if "avx512f" in features:
        found = AVX512_BF16 if "avx512bf16" in features else AVX512
        found = AMX if AMX.needs <= features else found
    elif "avx2" in features:
        found = AVX2
    else:
        found = SSE2 if "sse2" in features else SIMD128
    # Measured: on Zen 5 fetching ahead lifts reads from the third level from 104 to 127 GB/s, on
    # Zen 4 it lowers them from 94 to 77.
    ahead = 4096 if name == "znver5" else 0
    return replace(found, fused="fma" in features, fetch_ahead=ahead)


NAME = _name()
FEATURES = _features()
#: This host's instruction set.
HOST = _found(FEATURES, NAME)

_current: ContextVar[InstructionSet] = ContextVar("instruction set", default=HOST)


def runs_here(isa: InstructionSet) -> bool:
    """Whether this host has all the instructions of a set."""
    return isa.needs <= FEATURES


def current() -> InstructionSet:
    """The instruction set that is packed and compiled for."""
    return _current.get()


@contextmanager
def compiling_for(wanted: InstructionSet) -> Iterator[None]:
    """Pack and compile for an instruction set in between, in the calling thread.

    Kernels made meanwhile run only where its instructions are there; what was packed for it is
    read by its own kernels alone.
    """
    token = _current.set(wanted)
    try:
        yield
    finally:
        _current.reset(token)


def for_each(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """Keep what a function of positional arguments makes, one for each instruction set."""

    @cache
    def kept(isa: InstructionSet, *args: Any) -> _Made:
        return make(*args)

    @wraps(make)
    def made(*args: Any) -> _Made:
        return kept(_current.get(), *args)

    return made


def suffix() -> str:
    """What names of kernels for another instruction set than the host's end in."""
    return "" if current() == HOST else f"-for-{current().name}"
