"""Kernels as PTX, and what ptxas makes of them, on machines without a GPU.

    python -m fastrnn_kernels.cuda.ptx                 all kernels, types and capabilities
    python -m fastrnn_kernels.cuda.ptx --table FILE    the table of compute capability 9.0

prints a line to each kernel: registers to a thread, shared memory of a block, and the warps of
a multiprocessor's 64 that these and the threads to a block leave room for. Resident kernels are
compiled for a size, as they are divided on a GPU of that capability. It needs numba-cuda and the
wheels of NVIDIA's compilers (the extra `ptx`), no GPU.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numba import cuda
from numba.cuda.cudadrv import nvvm

from fastrnn_kernels.cells.activations import PLAIN
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.registry import CELLS
from fastrnn_kernels.cuda.launch.kernel import BLOCK, Kernel
from fastrnn_kernels.cuda.resident.backward import backward_kernel
from fastrnn_kernels.cuda.resident.division import Gpu, divide
from fastrnn_kernels.cuda.resident.forward import forward_kernel
from fastrnn_kernels.cuda.stepwise.backward import backward_kernels
from fastrnn_kernels.cuda.stepwise.backward import begin_kernel as begin_backward_kernel
from fastrnn_kernels.cuda.stepwise.fill import fill_kernel
from fastrnn_kernels.cuda.stepwise.forward import (
    advance_kernel,
    begin_kernel,
    forward_kernels,
)
from fastrnn_kernels.cuda.stepwise.linear import activation_kernel

Capability = tuple[int, int]

DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))
#: A GPU of each compute capability, for which resident passes are divided.
GPUS = {
    (7, 5): Gpu(40, 64 << 10, (7, 5)),
    (8, 0): Gpu(108, 163 << 10, (8, 0)),
    (9, 0): Gpu(132, 227 << 10, (9, 0)),
    (10, 0): Gpu(148, 227 << 10, (10, 0)),
}
#: H, B, type to compute in and whether of both directions, of resident kernels of float32 that
#: differ in where R is: in one block's registers, or in its shared memory too; in a cluster's, or
#: in all blocks', for one row or tiles of them. What 9.0 does by a cluster, older ones do by all.
SHAPES = (
    (64, 16, "", False),
    (112, 500, "", False),
    (256, 64, "", True),
    (512, 1, "", False),
    (768, 16, "", False),
    (512, 16, "tf32", False),
    (768, 16, "bfloat16", True),
    (1024, 64, "float16", False),
)
WIDE_SHAPES = (48, 16, "", False), (96, 4, "", False), (256, 4, "", False)  # of float64


class Resources(NamedTuple):
    """What a compiled kernel takes, to a thread; shared memory to a block."""

    registers: int
    spilled: int  # bytes
    stack: int  # bytes of memory that stands in for registers

    def warps(self, threads: int, shared_bytes: int, gpu: Gpu) -> int:
        """Warps of a multiprocessor's 64 that find room, in blocks of so many threads."""
        each = -(-self.registers // 8) * 8  # they are given out by eights
        blocks = min(65536 // (each * threads), 2048 // threads)
        if shared_bytes:
            blocks = min(blocks, gpu.shared_bytes // shared_bytes)
        return blocks * (threads // 32)


class Named(NamedTuple):
    """A kernel, its name, and the threads and shared memory of a block."""

    name: str
    kernel: Kernel
    threads: int = BLOCK
    shared_bytes: int = 0

    def look(self, capability: Capability) -> tuple[str, str, str]:
        """What it takes, in words; what is wrong with that, if anything; its PTX."""
        ptx = compiled(self.kernel, capability)
        found = assembled(ptx, capability)
        warps = found.warps(self.threads, self.shared_bytes, GPUS[capability])
        words = f"{found.registers} registers, {self.shared_bytes} bytes, {warps} warps"
        float32 = self.kernel.dtype == np.float32
        faults = {
            f"spills {found.spilled} bytes": found.spilled,
            f"has a stack of {found.stack} bytes": found.stack,
            "no block finds room": warps == 0,
            "computes in float64": float32 and ".f64" in ptx,
        }
        return words, ", ".join(fault for fault, is_so in faults.items() if is_so), ptx


def kernels(dtype: np.dtype[Any], capability: Capability) -> Iterator[Named]:
    """Every kernel of a float type."""
    yield Named("fill", fill_kernel())
    yield Named("advance", advance_kernel())
    yield Named("begin forward", begin_kernel(dtype))
    yield Named("begin backward", begin_backward_kernel(dtype))
    for activation in (None, *PLAIN):
        yield Named(f"linear {activation}", activation_kernel(activation, dtype))
    for cell in (entry.cell for entry in CELLS.values() if not entry.defined):
        for projected in (False, True) if not cell.reads_h else (False,):
            yield from _stepwise(cell, dtype, projected)
        if not cell.late:
            yield from _resident(cell, dtype, GPUS[capability])


def _resident(cell: Cell, dtype: np.dtype[Any], gpu: Gpu) -> Iterator[Named]:
    for H, B, compute, both in SHAPES if dtype == np.float32 else WIDE_SHAPES:
        if compute and gpu.capability < (8, 0):
            continue
        here = gpu._replace(multiprocessors=gpu.multiprocessors // (1 + both))
        for backward in (False, True):
            division = divide(cell, H, B, dtype.itemsize, here, backward, compute)
            if division is None:  # R is too large for the smaller GPUs
                continue
            made = backward_kernel if backward else forward_kernel
            kernel = made(cell, dtype, division.compiled, both)
            what = f"{compute} {'both ' * both}{'backward' if backward else 'forward'}".strip()
            name = f"{cell.name} resident H={H} B={B} {what}"
            yield Named(name, kernel, division.threads, division.shared_bytes)


def _stepwise(cell: Cell, dtype: np.dtype[Any], projected: bool) -> Iterator[Named]:
    forward = forward_kernels(cell, dtype, projected)
    backward = backward_kernels(cell, dtype, projected)
    name = f"{cell.name} stepwise{' projected' if projected else ''}"
    yield Named(f"{name} forward gates", forward.gates)
    yield Named(f"{name} backward gates", backward.gates)
    if cell.late:
        yield Named(f"{name} forward inner", forward.inner)
        yield Named(f"{name} backward late", backward.late)
    if projected:
        yield Named(f"{name} forward keep", forward.keep)
        yield Named(f"{name} backward hidden", backward.hidden)


class _Target:
    """Stands where Numba asks for the current GPU."""

    def __init__(self, capability: Capability) -> None:
        self.compute_capability = capability


@contextmanager
def _no_gpu(capability: Capability) -> Iterator[None]:
    """Have Numba compile for a GPU that is not there."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("numba.cuda") and hasattr(module, "get_current_device")
    ]
    target = _Target(capability)
    with ExitStack() as patches:
        for module in modules:
            patch = mock.patch.object(module, "get_current_device", return_value=target)
            patches.enter_context(patch)
        yield


@cache
def _intermediate(kernel: Kernel) -> tuple[Any, dict[str, Any]]:
    """What Numba gives to NVVM for a kernel, and with which options.

    Numba's own part is most of the time, and knows nothing of GPUs but what `math.tanh` is where
    accuracy is given up, which no kernel here asks for: so it is done once, for all of them.
    """
    newest = max(GPUS)
    with _no_gpu(newest), mock.patch.object(nvvm, "compile_ir", return_value=b"") as called:
        cuda.compile_ptx(kernel.function, kernel.signature, cc=newest, launch_bounds=kernel.threads)
    (modules,), options = called.call_args
    return modules, options


def compiled(kernel: Kernel, capability: Capability) -> str:
    """The PTX of a kernel."""
    modules, options = _intermediate(kernel)
    major, minor = capability
    text: bytes = nvvm.compile_ir(modules, **{**options, "arch": f"compute_{major}{minor}"})
    return text.decode().strip("\x00").strip()


def assembler() -> str:
    """Where ptxas is: the wheel's, which is of the version that made the PTX."""
    found = find_spec("nvidia.cu13")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "bin" / ("ptxas.exe" if sys.platform == "win32" else "ptxas")
        if path.is_file():
            return str(path)
    raise FileNotFoundError(
        "ptxas is not here: pip install 'cuda-toolkit[nvcc,nvvm,nvrtc]==13.0.*'"
    )


def assembled(ptx: str, capability: Capability) -> Resources:
    """What ptxas says of a kernel.

    Raises RuntimeError, with its words, if it refuses the PTX.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        architecture = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [assembler(), "-c", "-v", architecture, str(source), "-o", f"{source}.o"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())

    def number(pattern: str) -> int:
        return max((int(found) for found in re.findall(pattern, done.stderr)), default=0)

    return Resources(
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        number(r"(\d+) bytes stack frame"),
    )


def main() -> int:
    """Compile and report; 1 if a kernel spills, or computes in float64 where it should not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, help="write the table of 9.0 here, nothing else")
    arguments = parser.parse_args()
    capabilities = [(9, 0)] if arguments.table else list(GPUS)
    lines, wrong = [], 0
    for capability, dtype in itertools.product(capabilities, DTYPES):
        for named in kernels(dtype, capability):
            words, fault, _ = named.look(capability)
            lines.append(f"{dtype} {named.name}: {words}")
            wrong += bool(fault)
            major, minor = capability
            print(f"{major}.{minor} {lines[-1]}{f'  WRONG: {fault}' if fault else ''}", flush=True)
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
