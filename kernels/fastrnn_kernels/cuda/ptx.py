"""Kernels as PTX, and what ptxas makes of them, on machines without a GPU.

    python -m fastrnn_kernels.cuda.ptx                 all kernels, types and capabilities
    python -m fastrnn_kernels.cuda.ptx --table FILE    the table of compute capability 9.0

prints a line to each kernel: registers to a thread, and the warps of a multiprocessor's 64 that
these and the threads to a block leave room for; resident kernels fill its shared memory, which
is for their division to say. It needs numba-cuda and the wheels of NVIDIA's compilers
(`fastrnn[ptx]`), no GPU.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numba import cuda

from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cuda.division import BLOCK_ROWS, GRID_ROWS, MOST_THREADS
from fastrnn_kernels.cuda.kernel import BLOCK, Kernel
from fastrnn_kernels.cuda.linear_kernels import ACTIVATIONS, activation_kernel
from fastrnn_kernels.cuda.resident_kernels import backward_kernel, forward_kernel
from fastrnn_kernels.cuda.stepwise_backward_kernels import backward_kernels
from fastrnn_kernels.cuda.stepwise_backward_kernels import begin_kernel as begin_backward_kernel
from fastrnn_kernels.cuda.stepwise_kernels import (
    advance_kernel,
    begin_kernel,
    fill_kernel,
    forward_kernels,
)
from fastrnn_kernels.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.lstm import LSTM
from fastrnn_kernels.rnn import RNN_RELU, RNN_TANH

Capability = tuple[int, int]

CELLS = (RNN_TANH, RNN_RELU, LSTM, GRU, GRU_RESET_BEFORE)
DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))
CAPABILITIES: tuple[Capability, ...] = ((7, 5), (8, 0), (9, 0), (10, 0))


class Resources(NamedTuple):
    """What a compiled kernel takes, to a thread."""

    registers: int
    spilled: int  # bytes
    stack: int  # bytes of memory that stands in for registers

    def warps(self, threads: int) -> int:
        """Warps of a multiprocessor's 64 that find registers, in blocks of so many threads."""
        each = -(-self.registers // 8) * 8  # they are given out by eights
        return min(65536 // (each * threads), 2048 // threads) * (threads // 32)


def kernels(dtype: np.dtype[Any]) -> Iterator[tuple[str, Kernel]]:
    """Every kernel of a float type, by name."""
    yield "fill", fill_kernel()
    yield "advance", advance_kernel()
    yield "begin forward", begin_kernel(dtype)
    yield "begin backward", begin_backward_kernel(dtype)
    for activation in (None, *ACTIVATIONS):
        yield f"linear {activation}", activation_kernel(activation, dtype)
    for cell in CELLS:
        for projected in (False, True) if not cell.reads_h else (False,):
            yield from _stepwise(cell, dtype, projected)
        if not cell.late:
            resident = [(rows, False) for rows in BLOCK_ROWS] + [(rows, True) for rows in GRID_ROWS]
            for rows, gridded in resident:
                name = f"{cell.name} resident {'grid' if gridded else 'block'} {rows} rows"
                yield f"{name} forward", forward_kernel(cell, dtype, rows, gridded)
                yield f"{name} backward", backward_kernel(cell, dtype, rows, gridded)


def _stepwise(cell: Cell, dtype: np.dtype[Any], projected: bool) -> Iterator[tuple[str, Kernel]]:
    forward = forward_kernels(cell, dtype, projected)
    backward = backward_kernels(cell, dtype, projected)
    name = f"{cell.name} stepwise{' projected' if projected else ''}"
    yield f"{name} forward gates", forward.gates
    yield f"{name} backward gates", backward.gates
    if cell.late:
        yield f"{name} forward inner", forward.inner
        yield f"{name} backward late", backward.late
    if projected:
        yield f"{name} forward keep", forward.keep
        yield f"{name} backward hidden", backward.hidden


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


def compiled(kernel: Kernel, capability: Capability) -> str:
    """The PTX of a kernel."""
    with _no_gpu(capability):
        text, _ = cuda.compile_ptx(kernel.function, kernel.signature, cc=capability)
    return str(text)


def assembler() -> str:
    """Where ptxas is: the wheel's, which is of the version that made the PTX."""
    found = find_spec("nvidia.cu13")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "bin" / ("ptxas.exe" if sys.platform == "win32" else "ptxas")
        if path.is_file():
            return str(path)
    raise FileNotFoundError("ptxas is not here: pip install 'fastrnn[ptx]'")


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


def table(dtype: np.dtype[Any], capability: Capability) -> Iterator[tuple[str, Resources, str]]:
    """Name, resources and PTX of every kernel."""
    for name, kernel in kernels(dtype):
        ptx = compiled(kernel, capability)
        yield name, assembled(ptx, capability), ptx


def main() -> int:
    """Compile and report; 1 if a kernel spills, or computes in float64 where it should not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, help="write the table of 9.0 here, nothing else")
    arguments = parser.parse_args()
    capabilities = ((9, 0),) if arguments.table else CAPABILITIES
    lines, wrong = [], 0
    for capability, dtype in itertools.product(capabilities, DTYPES):
        for name, found, ptx in table(dtype, capability):
            warps = found.warps(MOST_THREADS if "resident" in name else BLOCK)
            lines.append(f"{dtype} {name}: {found.registers} registers, {warps} warps")
            fault = found.spilled or found.stack or warps == 0
            fault = fault or (dtype == np.float32 and ".f64" in ptx)
            wrong += bool(fault)
            major, minor = capability
            print(f"{major}.{minor} {lines[-1]}{f'  WRONG {found}' if fault else ''}", flush=True)
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
