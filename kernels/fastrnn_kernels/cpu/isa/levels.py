"""Levels of CPUs: what kernels are compiled for that travel in a wheel.

    x86-64-v3        AVX2, what x86 has had since 2013 (Intel) and 2015 (AMD)
    x86-64-v4        AVX-512
    x86-64-v4-bf16   AVX-512 with products of bfloat16, whose kernels alone it has
    aarch64          NEON, what every 64-bit ARM has

The first two are those of the x86's psABI. A level's kernels read panels as its registers are
wide, so a host takes those of levels with its own instruction set, and compiles what none has.
"""

from dataclasses import dataclass
from functools import cache

from fastrnn_kernels.cache import precompiled
from fastrnn_kernels.cpu.isa.host import FEATURES, HOST
from fastrnn_kernels.cpu.isa.instruction_set import (
    AVX2,
    AVX512,
    AVX512_BF16,
    NEON,
    InstructionSet,
)


@dataclass(frozen=True)
class Level:
    """A level, as a row of data.

    name: of it in a wheel, and its CPU's in LLVM where `cpu` tells no other.
    machine: the kind of machine, as Python's `platform.machine` calls it.
    features: LLVM's names of all that its code may use.
    dtypes: types to compute in whose kernels it has.
    """

    name: str
    machine: str
    isa: InstructionSet
    features: tuple[str, ...]
    cpu: str = ""
    dtypes: tuple[str, ...] = ("float32", "float64")

    @property
    def told(self) -> precompiled.Level:
        """What LLVM is told, and the cache."""
        features = ",".join(f"+{name}" for name in self.features)
        ahead = HOST.fetch_ahead != self.isa.fetch_ahead
        lacks = "fetch weights ahead of their use, as this CPU wants" if ahead else ""
        return precompiled.Level(self.name, self.cpu or self.name, features, lacks)


_V3 = (
    *("avx", "avx2", "bmi", "bmi2", "cmov", "cx16", "cx8", "f16c", "fma", "fxsr", "lzcnt", "mmx"),
    *("movbe", "popcnt", "sahf", "sse", "sse2", "sse3", "sse4.1", "sse4.2", "ssse3", "xsave"),
)
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
#: All levels; of those that a host runs, a kernel is taken of the first that has it.
LEVELS = (
    Level("x86-64-v4", "x86_64", AVX512, _V4),
    Level(
        "x86-64-v4-bf16", "x86_64", AVX512_BF16, (*_V4, "avx512bf16"), "x86-64-v4", ("bfloat16",)
    ),
    Level("x86-64-v3", "x86_64", AVX2, _V3),
    Level("aarch64", "aarch64", NEON, ("fp-armv8", "neon"), "generic"),
)


def _alike(isa: InstructionSet, other: InstructionSet) -> bool:
    """Whether kernels of one set are right where all else is of the other.

    Those that multiply pairs or tiles of bfloat16 have names of their own.
    """

    def layout(one: InstructionSet) -> tuple[object, ...]:
        return one.vector_bytes, one.registers, one.fused, one.mode

    return layout(isa) == layout(other)


@cache
def fitting() -> tuple[precompiled.Level, ...]:
    """The levels whose kernels this host runs beside its own."""
    return tuple(
        level.told
        for level in LEVELS
        if _alike(level.isa, HOST) and FEATURES.issuperset(level.features)
    )
