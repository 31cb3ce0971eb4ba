"""Where a layer runs: "auto", "cpu" or "cuda", and what this machine has of them."""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, cast

import llvmlite.binding as llvm
import numba

from fastrnn import check
from fastrnn_kernels import handlers
from fastrnn_kernels.cpu import device as cpu
from fastrnn_kernels.cpu.isa import host
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.weights import Weights

if TYPE_CHECKING:
    from fastrnn_kernels.cuda import device as _cuda_kernels
    from fastrnn_kernels.device import TunedDevice

    _contract: TunedDevice = _cuda_kernels

#: Multiply-adds of a call up to which a core is done (at some 50e9 a second) before a GPU has
#: been given the arrays and gives them back.
LEAST_WORK = 4_000_000
#: Types that the kernels compute products in; the GPU's have "tf32" too, where that is allowed.
CPU_COMPUTE = ("float32", "float64", "bfloat16")
GPU_COMPUTE = ("float32", "float64", "bfloat16", "float16")

_tf32_allowed = False


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


def allow_tf32(allowed: bool = True) -> None:
    """Let products of float32 on the GPU be computed in tf32, or not, from the next call on.

    Operands then have 10 bits after the first in place of 23; sums stay float32. At first it
    is not allowed. Raises TypeError for what is no boolean.
    """
    global _tf32_allowed
    _tf32_allowed = check.flag("allowed", allowed)


def tf32_allowed() -> bool:
    """Whether products of float32 on the GPU may be computed in tf32."""
    return _tf32_allowed


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow tf32, or not, in between."""
    before = _tf32_allowed
    allow_tf32(allowed)
    try:
        yield
    finally:
        allow_tf32(before)


def gpu_compute(compute: str) -> str:
    """The type that the GPU computes products in, of a layer of a type."""
    return "tf32" if _tf32_allowed and compute == "float32" else compute


#: What lets go of memory before it is given back.
_letting_go: list[Callable[[], object]] = []


def at_release(let_go: Callable[[], object]) -> None:
    """Have a function called by `release_memory`, to drop what it can do without."""
    _letting_go.append(let_go)


def release_memory() -> int:
    """Give the memory that fastrnn keeps for its next call back to the system.

    Tapes and scratch are used again once nothing refers to them; at most 256 MiB wait.
    Returns how many bytes that was.
    """
    for let_go in _letting_go:
        let_go()
    return cpu.release_memory()


def devices() -> list[Device]:
    """The devices that fastrnn knows, with what this machine has of them."""
    return [_cpu(), _cuda()]


def kernels_for(device: str) -> Kernels:
    """The module whose kernels run on a device; for "auto" that where its layers are at home.

    Raises RuntimeError, with the reason, for "cuda" where it cannot be used.
    """
    check.choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cuda":
        cuda = _cuda()
        if not cuda.available:
            raise RuntimeError(f"device 'cuda' cannot be used: {cuda.reason}")
    elif numba.config.DISABLE_JIT and not (device == "auto" and numba.config.ENABLE_CUDASIM):
        raise RuntimeError("NUMBA_DISABLE_JIT is set: the CPU's kernels run only compiled")
    return kernels_of(device)


def kernels_of(device: str) -> Kernels:
    """The kernels of a device that is known to be of use."""
    if device == "cuda":
        return cast(Kernels, import_module("fastrnn_kernels.cuda.device"))
    return cpu


def few_rows(weights: Sequence[Weights]) -> int:
    """T * B up to which a call of "auto" is the CPU's, its products too few for the GPU to pay.

    weights: of all layers and directions. Where the CPU's kernels cannot run, as with Numba's
    simulator, no call is so small.
    """
    if numba.config.DISABLE_JIT:
        return -1
    return LEAST_WORK // max(1, sum(one.w_ih.size + one.w_hh.size for one in weights))


def gpu_kernels() -> Kernels | None:
    """The GPU's kernels for what chooses by itself; None where they cannot be used.

    Where there is a GPU all the same, a warning tells why, once.
    """
    return _gpu_kernels(os.getpid())  # a forked child finds out for itself


@cache
def _gpu_kernels(process: int) -> Kernels | None:
    cuda = _cuda()
    if cuda.available:
        return kernels_of("cuda")
    if cuda.details or _driver().broken:
        warnings.warn(
            f"device 'auto' means the CPU here, as the GPU cannot be used: {cuda.reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return None


def _cpu() -> Device:
    vector = [
        name
        for name in ("avx512f", "avx2", "fma", "neon", "avx512bf16", "amx-bf16")
        if name in host.FEATURES
    ]
    return Device(
        "cpu",
        True,
        details={
            "model": _cpu_model(),
            "architecture": f"{platform.machine()} ({llvm.get_host_cpu_name()})",
            "vector registers": f"{host.HOST.registers} of {8 * host.HOST.vector_bytes} bits",
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


class Driver(NamedTuple):
    """What the NVIDIA driver says: the GPUs' names, or why there are none to use."""

    gpus: tuple[str, ...] = ()
    reason: str = ""
    broken: bool = False  # whether there is a driver, which does not work


#: What a GPU takes beside its driver: modules, and the packages that have them.
_PACKAGES = {"numba_cuda": "'numba-cuda[cu13]'", "cupy": "cupy-cuda13x"}
#: The process that has used the driver first: what is forked from it cannot.
_first_process = 0


def _cuda() -> Device:
    if numba.config.ENABLE_CUDASIM:
        return Device("cuda", True, details={"gpu": "Numba's simulator"})
    found = _driver()
    details = {"gpu": ", ".join(found.gpus)} if found.gpus else {}
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    reason = found.reason
    if found.gpus and missing:
        packages = " ".join(_PACKAGES[name] for name in missing)
        reason = f"{' and '.join(missing)} not installed (pip install {packages})"
    reason = reason or _trial()
    return Device("cuda", not reason, reason, details)


def _driver() -> Driver:
    """What there is, from the driver itself."""
    global _first_process
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return Driver(reason=f"no NVIDIA driver was found ({library})")
    if _first_process not in (0, os.getpid()):
        return Driver(reason="this process was forked from one that had used CUDA")
    count, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status == _NO_DEVICE or (status == 0 and count.value == 0):
        return Driver(reason="the NVIDIA driver reports no GPU")
    if status != 0:
        return Driver(reason=f"the NVIDIA driver reports error {status}", broken=True)
    _first_process = os.getpid()
    names = []
    for index in range(count.value):
        if driver.cuDeviceGetName(name, len(name), index) == 0:
            names.append(name.value.decode(errors="replace"))
    return Driver(tuple(names))


#: The driver's error for a machine without a GPU, or a process that may see none.
_NO_DEVICE = 100


@cache
def _trial() -> str:
    """Why the GPU cannot be used although all there is to it is there; empty if it can be."""
    try:
        return str(import_module("fastrnn_kernels.cuda.trial").trial())
    except Exception as error:  # whatever an unfit driver or a broken installation raises
        handlers.pass_on(error)
        return f"{type(error).__name__}: {error}"
