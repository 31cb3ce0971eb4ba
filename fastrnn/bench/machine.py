"""What the machine is: its caches, what Numba makes of it, versions. Nothing is measured here."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Sizes taken where the system does not tell: those of small present-day cores.
ASSUMED = {"L1": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}
PACKAGES = (
    "numba", "llvmlite", "numpy", "numba-cuda", "torch", "keras", "onnxruntime", "onnx", "openvino",
)  # fmt: skip


def _sysctl(name: str) -> str:
    """A value of the macOS kernel, empty where there is none."""
    try:
        asked = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()


def _linux_caches() -> dict[str, int]:
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind = (index / "type").read_text().strip()
            level = (index / "level").read_text().strip()
            size = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip())
        except OSError:
            continue
        if size and kind != "Instruction":
            found[f"L{level}"] = int(size[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[size[2]]
    return found


def cache_bytes() -> dict[str, int]:
    """Bytes of L1 (data), L2 and L3; the last is shared by the cores."""
    found: dict[str, int] = {}
    if platform.system() == "Linux":
        found = _linux_caches()
    elif platform.system() == "Darwin":
        names = {"L1": "hw.l1dcachesize", "L2": "hw.l2cachesize", "L3": "hw.l3cachesize"}
        found = {level: int(size) for level, name in names.items() if (size := _sysctl(name))}
    return {level: found.get(level) or assumed for level, assumed in ASSUMED.items()}


def load() -> float | None:
    """Processes that wanted to run over the last minute, on average; None where not told."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that matter here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def features() -> tuple[list[str], int]:
    """The vector features that Numba compiles for, and the bytes of a vector register."""
    from fastrnn_kernels.cpu.isa.host import FEATURES, HOST

    return sorted(FEATURES), HOST.vector_bytes
