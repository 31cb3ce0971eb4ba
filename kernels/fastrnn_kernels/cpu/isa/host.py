"""What the host's vector units offer, read once."""

import llvmlite.binding as llvm
from numba.core import config


def _features() -> frozenset[str]:
    """The vector features that Numba compiles for: the host's, or what the user set."""
    if config.CPU_FEATURES is not None:
        asked = str(config.CPU_FEATURES).split(",")
        return frozenset(name[1:] for name in asked if name.startswith("+"))
    try:
        found = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on this kind of host
        return frozenset()
    return frozenset(name for name, present in found.items() if present)


def _name() -> str:
    """LLVM's name of the CPU that Numba compiles for."""
    return str(config.CPU_NAME or llvm.get_host_cpu_name())


NAME = _name()
FEATURES = _features()
HAS_FMA = bool({"fma", "neon"} & FEATURES)
VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx2" in FEATURES else 16
#: Whether pairs of bfloat16 are multiplied by one instruction.
HAS_BFLOAT16 = VECTOR_BYTES == 64 and "avx512bf16" in FEATURES
#: Vector registers that a block may fill.
REGISTERS = 32 if {"avx512f", "neon"} & FEATURES else 16
#: Bytes ahead of their use that panels are asked for in loops bound by reading them; 0 where
#: the hardware's own fetching does better. Measured: on Zen 5 it lifts reads from the third
#: level from 104 to 127 GB/s, on Zen 4 it lowers them from 94 to 77.
FETCH_AHEAD = 4096 if NAME == "znver5" else 0
