"""Where a layer runs: "auto", "cpu" or "cuda", and what this machine has of them."""

import ctypes
import platform
import sys
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import llvmlite.binding as llvm
import numba

from fastrnn import check
from fastrnn_kernels import cpu
from fastrnn_kernels.cpu import host


@dataclass(frozen=True)
class Device:
    """A device, whether fastrnn can use it here, and if not, why."""

    name: str
    available: bool
    reason: str = ""
    details: dict[str, str] = field(default_factory=dict)


def set_num_threads(threads: int) -> None:
    """Set how many CPU threads a call may use, the calling one among them.

    Raises TypeError or ValueError if `threads` is not an integer of at least 1. Results
    do not depend on it.
    """
    cpu.set_num_threads(check.size("threads", threads))


def get_num_threads() -> int:
    """How many CPU threads a call may use: at first, as many as the process has CPUs."""
    return cpu.get_num_threads()


def release_memory() -> int:
    """Give the memory that fastrnn keeps for its next call back to the system.

    Tapes and scratch are used again once nothing refers to them; at most 256 MiB wait.
    Returns how many bytes that was.
    """
    return cpu.release_memory()


def devices() -> list[Device]:
    """The devices that fastrnn knows, with what this machine has of them."""
    return [_cpu(), _cuda()]


def kernels_for(device: str) -> ModuleType:
    """The module whose kernels run on a device.

    Raises RuntimeError, with the reason, for "cuda" where it cannot be used; "auto" takes
    what there is.
    """
    check.choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda":
        cuda = _cuda()
        if not cuda.available:
            raise RuntimeError(f"device 'cuda' cannot be used: {cuda.reason}")
        return import_module("fastrnn_kernels.cuda.device")
    if numba.config.DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set: the CPU's kernels run only compiled")
    return cpu


def _cpu() -> Device:
    vector = [
        name for name in ("avx512f", "avx2", "fma", "neon", "avx512bf16") if name in host.FEATURES
    ]
    return Device(
        "cpu",
        True,
        details={
            "model": _cpu_model(),
            "architecture": f"{platform.machine()} ({llvm.get_host_cpu_name()})",
            "vector registers": f"{host.REGISTERS} of {8 * host.VECTOR_BYTES} bits",
            "features": ", ".join(vector) or "none that fastrnn uses",
            "threads": f"{get_num_threads()} of {cpu.available_cpus()} CPUs",
            "threading layer": "fastrnn's own pool of Python threads; kernels release the GIL",
        },
    )


def _cpu_model() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as file:
                for line in file:
                    key, _, value = line.partition(":")
                    if key.strip() == "model name":
                        return value.strip()
        except OSError:
            pass  # no /proc in this container: the platform's word has to do
    return platform.processor() or platform.machine()


def _cuda() -> Device:
    if numba.config.ENABLE_CUDASIM:
        return Device("cuda", True, details={"gpu": "Numba's simulator"})
    gpus, reason = _gpus()
    missing = [name for name in ("numba_cuda", "cupy") if find_spec(name) is None]
    if gpus and missing:
        reason = f"{' and '.join(missing)} not installed (pip install 'fastrnn[cuda]')"
    return Device("cuda", not reason, reason, {"gpu": ", ".join(gpus)} if gpus else {})


def _gpus() -> tuple[list[str], str]:
    """Names of the NVIDIA GPUs, or why there are none, from the driver itself."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return [], f"no NVIDIA driver was found ({library})"
    count, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return [], f"the NVIDIA driver reports error {status}"
    names = []
    for index in range(count.value):
        if driver.cuDeviceGetName(name, len(name), index) == 0:
            names.append(name.value.decode(errors="replace"))
    return names, "" if names else "the NVIDIA driver reports no GPU"
