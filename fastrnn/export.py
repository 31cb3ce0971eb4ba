"""Models as C: an object file, a header, and libraries, without Python at run time."""

import copy
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from numba.core.errors import NumbaError

import fastrnn
from fastrnn import check
from fastrnn.models.streamable import Streamable
from fastrnn.streams.source import storage_of
from fastrnn_kernels.cache.files import write_whole
from fastrnn_kernels.cpu.isa import host
from fastrnn_kernels.cpu.isa.instruction_set import (
    AVX2,
    AVX512,
    NEON,
    SIMD128,
    SSE2,
    InstructionSet,
)
from fastrnn_kernels.cpu.stream.objects import Target, emit

__all__ = ["CPUS", "export"]

_ARM = platform.machine().lower() in ("aarch64", "arm64")
#: What code is made for: LLVM's name of the processor, and its vector unit.
_CPUS: dict[str, tuple[str, InstructionSet]] = {
    **({"generic": ("generic", NEON)} if _ARM else {}),
    **({} if _ARM else {"generic": ("x86-64", SSE2), "x86-64-v2": ("x86-64-v2", SSE2)}),
    **({} if _ARM else {"x86-64-v3": ("x86-64-v3", AVX2), "x86-64-v4": ("x86-64-v4", AVX512)}),
    "wasm32": ("generic", SIMD128),
}
#: The same, and the machine that exports.
CPUS = ("host", *_CPUS)

#: Identifiers that are none, in C and in C++.
_WORDS = """
asm auto bool break case catch char class const continue default delete do double else enum explicit
extern false float for friend goto if inline int long mutable namespace new operator private
protected public register restrict return short signed sizeof static struct switch template this
throw true try typedef typename union unsigned using virtual void volatile while
"""
_KEYWORDS = frozenset(_WORDS.split())

_HEADER = """\
/* {model}
   as a stream of C's, made by fastrnn {version} for {cpu}.

   A stream's state is memory of the caller's: {name}_state_size() bytes, aligned to 8, put to
   its beginning by {name}_reset. Functions return 0, or 1 if a pointer is NULL, or 2 if the
   state was never reset. Streams with states of their own may run in threads of their own. */

#ifndef {guard}_H
#define {guard}_H

#include <stddef.h>

#define {guard}_INPUT_SIZE {inputs}
#define {guard}_OUTPUT_SIZE {outputs}
#define {guard}_STATE_SIZE {state}

#ifdef __cplusplus
extern "C" {{
#endif

/* Bytes of a state. */
size_t {name}_state_size(void);

/* Begin anew, from a state of {start}. */
int {name}_reset(void *state);

/* One step: x of {inputs} values, y of {outputs}. */
int {name}_step(void *state, const {number} *x, {number} *y);

/* Steps one after the other: x of steps * {inputs} values, y of steps * {outputs}. */
int {name}_block(void *state, const {number} *x, {number} *y, size_t steps);

#ifdef __cplusplus
}}
#endif

#endif
"""


def export(
    model: Streamable[Any],
    folder: str | os.PathLike[str],
    *,
    name: str = "model",
    cpu: str = "host",
    weights: str | None = None,
) -> list[Path]:
    """Write a model as an object file and a C header, and as libraries where tools are found.

    folder: where, made if it is not there. name: of the files, and what the functions' names
    begin with. cpu: what the code is for: "host", "generic" (the least of this kind of
    machine), on x86 "x86-64-v2" to "-v4", "wasm32".

    weights: how they are stored, as `stream` has it.

    A stream of one row; its weights stand in the code. Returns the files: name.o and name.h,
    libname.a where `ar` is found, and a shared library where a C compiler is.

    Raises ValueError for a name that is no C identifier, an unknown cpu, a model that cannot
    stream; OSError where the files cannot be written.
    """
    check.choice("cpu", cpu, CPUS)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"name is {name!r}, wanted a C identifier")
    if name in _KEYWORDS:
        raise ValueError(f"name is {name!r}: {name!r} is a word of C's or C++'s")
    if not isinstance(model, Streamable):
        raise TypeError(f"model is a {type(model).__name__}, wanted one that streams")
    storage = storage_of(model, weights)
    if model._on_gpu():
        raise RuntimeError(f"{model._owner} is on the GPU, what is exported runs on the CPU")
    model._stages(1, storage)  # which refuses what cannot stream, before a folder is made
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = copy.deepcopy(model)  # so that nothing stays with the model of what is packed here
    try:
        with host.compiling_for(host.HOST if cpu == "host" else _CPUS[cpu][1]):
            stages = made._stages(1, storage)
            starts = made._split_layers("state", None, 1)
            code, state = emit(stages, starts, name, _target(cpu))
    except (RuntimeError, NumbaError) as error:  # LLVM's, and the compiler's own
        raise RuntimeError(f"the code could not be emitted: {error}") from error
    learned = any(one.any() for start in starts for one in start)
    header = _HEADER.format(
        start="the model's" if learned else "zeros",
        model=repr(model).replace("*/", "* /"), version=fastrnn.__version__, cpu=cpu, name=name,
        guard=name.upper(), inputs=stages[0][0].I, outputs=stages[-1][0].out_size, state=state,
        number="double" if model.dtype == "float64" else "float",
    )  # fmt: skip
    files = [folder / f"{name}.o", folder / f"{name}.h"]
    write_whole(files[0], code)
    write_whole(files[1], header.encode())
    return files + ([] if cpu == "wasm32" else _libraries(folder, name))


def _target(cpu: str) -> Target:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    if cpu == "host":
        features = ",".join(f"+{name}" for name in sorted(host.FEATURES))
        return Target(llvm.get_process_triple(), host.NAME, features)
    if cpu == "wasm32":
        return Target("wasm32-unknown-unknown", "generic", "+simd128")
    return Target(llvm.get_process_triple(), _CPUS[cpu][0], "")


def _libraries(folder: Path, name: str) -> list[Path]:
    """The object file as a static and a shared library, where there are tools for it."""
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    static, shared = folder / f"lib{name}.a", folder / f"lib{name}{suffix}"
    found = []
    commands = [(static, "ar", ["rcs", static.name, f"{name}.o"])]
    for compiler in ("cc", "gcc", "clang"):
        commands.append((shared, compiler, ["-shared", "-o", shared.name, f"{name}.o"]))
    for file, tool, arguments in commands:
        program = shutil.which(tool)
        if file in found:
            continue
        file.unlink(missing_ok=True)  # an old one does not belong to the new code
        if program is None:
            continue
        if subprocess.run([program, *arguments], cwd=folder, capture_output=True).returncode == 0:
            found.append(file)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
