"""Compiling kernels for the wheel: for levels of CPUs, whichever this machine is.

`hatch_build.py` runs `main` where a wheel is built, and tells what is asked for. Each process
compiles some cells' kernels of a type for a level, into a cache folder of the level's own; FOLDER
gets what they have kept there.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

import fastrnn_kernels
from fastrnn.models.classes import layer_of
from fastrnn.tools.warmup import DTYPES, warmup
from fastrnn_kernels.cache import keys
from fastrnn_kernels.cells import registry
from fastrnn_kernels.cpu.arrays.compare import Copies
from fastrnn_kernels.cpu.arrays.take import take
from fastrnn_kernels.cpu.device import available_cpus
from fastrnn_kernels.cpu.isa.levels import LEVELS, Level
from fastrnn_kernels.cpu.sequence import packs, small
from fastrnn_kernels.cpu.stream import entry, generic
from fastrnn_kernels.cpu.threads import openmp, recipe

#: What is compiled, each of these in a process of its own, the longest first.
CELLS = (("lstm",), ("gru",), ("rnn", "rnn-relu"))
#: Numba's settings that nothing is compiled under for others.
_UNSET = ("NUMBA_DISABLE_JIT", "NUMBA_ENABLE_CUDASIM")
_PROGRAM = """
import sys
sys.path[:0] = sys.argv[4:]
from fastrnn_kernels.cache import foreign
foreign.enter(sys.argv[3])
from fastrnn.tools.precompile import compile_cells
compile_cells(sys.argv[1].split(","), sys.argv[2])
"""


def machine() -> str:
    """The kind of this machine, as levels call it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def native() -> tuple[str, ...]:
    """The levels of this kind of machine."""
    return tuple(level.name for level in LEVELS if level.machine == machine())


def named(names: Sequence[str]) -> list[Level]:
    """The levels of these names; raises ValueError for one that there is not."""
    known = {level.name: level for level in LEVELS}
    for name in names:
        if name not in known:
            raise ValueError(f"level is {name!r}, wanted one of {', '.join(known)}")
    return [known[name] for name in names]


def compile_cells(cells: Sequence[str], dtype: str) -> None:
    """Compile the kernels of cells and a type, and what all share, in a process that runs none."""
    warmup(cells, [dtype])
    if "lstm" in cells and dtype != "bfloat16":  # a projection has products of its own
        layer = layer_of("lstm", 2, 3, proj_size=2, dtype=dtype)
        y, _, tape = layer.forward(np.zeros((1, 1, 2), dtype))
        layer.backward(tape, y)
    if dtype != "bfloat16":
        for name in cells:
            packs.prepare(registry.CELLS[name].cell, dtype)
    Copies([np.zeros(1, np.float32)]).current()
    take(np.zeros((2, 2, 1), np.float32).swapaxes(0, 1))
    small.prepare()
    recipe.prepare()
    openmp.prepare()
    entry.prepare()
    if dtype != "bfloat16":
        generic.prepare(cells, dtype)


def _triple(level: Level) -> str:
    """LLVM's name of a level's kind of machine; "" for this one."""
    if level.machine == machine():
        return ""
    if sys.platform != "linux":
        raise ValueError(f"level {level.name} is compiled on {level.machine}, or on Linux")
    return "-".join([level.machine, *llvm.get_process_triple().split("-")[1:]])


def _compile(level: Level, cells: str, dtype: str, cache: Path) -> None:
    """Compile cells for a level in a process of their own."""
    roots = [Path(__file__).parents[2], Path(fastrnn_kernels.__file__).parents[1]]
    told = level.told
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, cells, dtype, _triple(level), *roots],
        env={
            **{name: value for name, value in os.environ.items() if name not in _UNSET},
            "FASTRNN_CACHE_DIR": str(cache),
            "NUMBA_CPU_NAME": told.cpu,
            "NUMBA_CPU_FEATURES": told.features,
        },
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{cells} {dtype} for {level.name}: {done.stderr.strip()}")


def precompile(
    folder: Path,
    levels: Iterable[str],
    *,
    cells: Iterable[Sequence[str]] = CELLS,
    dtypes: Iterable[str] = DTYPES,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Compile cells for levels, and put them into a folder as `cache/precompiled.py` has it.

    cells: names by processes that compile them. say: called with a line for each that is done.

    Raises ValueError for a level that is unknown or cannot be compiled for on this machine,
    RuntimeError with what a process said that failed.
    """
    chosen = named(tuple(levels))
    for level in chosen:
        _triple(level)
    wanted = set(dtypes)
    # Levels in turn: processes of one level that begin at once compile twice what cells share.
    tasks = [
        (level, ",".join(group), dtype)
        for group in cells
        for dtype in DTYPES
        for level in chosen
        if dtype in level.dtypes and dtype in wanted
    ]
    with tempfile.TemporaryDirectory() as cache:

        def run(task: tuple[Level, str, str]) -> None:
            level, group, dtype = task
            _compile(level, group, dtype, Path(cache) / level.name)
            say(f"{group} {dtype} for {level.name}")

        with ThreadPoolExecutor(available_cpus()) as pool:
            list(pool.map(run, tasks))
        for level in chosen:
            to = folder / level.name / keys.portable()
            to.mkdir(parents=True, exist_ok=True)
            for file in (Path(cache) / level.name).glob("kernels-*/*.nbc"):
                shutil.copyfile(file, to / file.name)


def tag(levels: Sequence[str]) -> str:
    """The tag of a wheel with kernels for these levels: of this Python, for their machine."""
    machines = {level.machine for level in named(levels)}
    if len(machines) != 1:
        found = ", ".join(sorted(machines)) or "no machine"
        raise ValueError(f"levels are for {found}, wanted one kind of machine")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    abi = python + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
    where = re.sub(r"[-. ]", "_", sysconfig.get_platform())
    return f"{python}-{abi}-{where.replace(machine(), machines.pop())}"


def main(folder: str, asked: str = "") -> None:
    """Compile what FASTRNN_PRECOMPILE asks for (`hatch_build.py`), and print a wheel's tag."""
    levels = native() if asked in ("", "release") else tuple(asked.split(","))
    name = tag(levels)
    dtypes = ("float32", "bfloat16") if asked == "" else DTYPES
    precompile(Path(folder), levels, dtypes=dtypes, say=print)
    print(name)
