"""Compiled kernels, kept on disk.

Numba's own cache keys a function by its file and line: it cannot keep a kernel made in a
closure, serves a stale one when an imported file changes, and can mix up the entries of
two processes that write at once. Here one file holds one compiled signature, written in
one move behind a checksum; its folder's name carries a hash of every kernel source and of
the versions and settings that compiled them (`keys.py`). What the user's folder has not may have
come with the package (`precompiled.py`).
"""

import hashlib
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding.ffi as llvm
from numba import njit
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from fastrnn_kernels.cache import keys, precompiled
from fastrnn_kernels.cache.announce import announce
from fastrnn_kernels.cache.files import write_whole
from fastrnn_kernels.handlers import Suppressed, pass_on


def _wait_at_fork(lock: Any) -> None:
    """Have forks wait for a lock, which the child could never get from a thread that is not there.

    These are functions of C's: what a signal's handler raises in one of Python's is lost in a fork,
    and the lock with it.
    """
    os.register_at_fork(
        before=lock.acquire,
        after_in_parent=lock.release,
        after_in_child=lock._at_fork_reinit,  # as the standard library's own modules do
    )


if hasattr(os, "register_at_fork"):
    # LLVM's is taken with Numba's held, and without it where compiled code is let go of. Forks take
    # the one that was registered last first.
    _wait_at_fork(llvm.lib._lock._lock)
    _wait_at_fork(global_compiler_lock._lock)

_DIGEST_BYTES = hashlib.sha256().digest_size
#: Seconds after which a folder of kernels that nobody has loaded is taken for a leftover.
UNUSED_S = 60 * 24 * 3600


def _root() -> Path:
    """FASTRNN_CACHE_DIR, or the user's cache folder for this platform."""
    asked = os.environ.get("FASTRNN_CACHE_DIR")
    if asked:
        return Path(asked).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastrnn"


def user_folder() -> Path | None:
    """The folder of all that fastrnn keeps; None for a user without a home folder."""
    try:
        return _root()
    except RuntimeError:
        return None


@cache
def cache_folder() -> Path | None:
    """The folder of the kernels that these sources, versions and settings compile.

    None for a user without a home folder, whose kernels are compiled in every process.
    """
    root = user_folder()
    if root is None:
        return None
    return root / f"kernels-{keys.exact()}"


@cache
def _use(folder: Path) -> None:
    """Mark a folder as used today, once a process."""
    with Suppressed(OSError):
        os.utime(folder)


def _remove_unused(folder: Path) -> None:
    """Remove what other versions left beside a folder, if none has loaded it for long."""
    for other in folder.parent.glob("kernels-*"):
        if other != folder and time.time() - other.stat().st_mtime > UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)


def _payload(path: Path) -> bytes | None:
    """What a file holds, if it is there and whole.

    Damaged machine code would end the process: what fails its checksum is compiled again.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        pass_on(error)
        return None
    digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return payload if hashlib.sha256(payload).digest() == digest else None


class _KernelCache(_Cache):  # type: ignore[misc]
    """What a Numba dispatcher asks for a compiled signature, and gives one to.

    folder: the user's, or None.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name, self._folder = name, folder
        self._enabled = True

    @property
    def cache_path(self) -> str:
        return str(self._folder or "")

    def _file(self, signature: Any, magic: tuple[str, str, str]) -> str:
        triple, *code = magic
        kind = triple.rstrip("0123456789.")  # macOS's ends in a version, on which no kernel depends
        key = repr((str(signature), kind, *code)).encode()
        return f"{self._name}-{hashlib.sha256(key).hexdigest()[:24]}.nbc"

    def _found(self, signature: Any, codegen: Any) -> bytes | None:
        """The user's own, or what has come with the package."""
        magic = codegen.magic_tuple()
        if self._folder is not None:
            payload = _payload(self._folder / self._file(signature, magic))
            if payload is not None:
                _use(self._folder)
                return payload
        triple = magic[0]
        for path in precompiled.paths(
            lambda cpu, features: self._file(signature, (triple, cpu, features))
        ):
            payload = _payload(path)
            if payload is not None:
                return payload
        return None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        payload = self._found(sig, target_context.codegen())
        if payload is None:
            return None
        # All that machine code asks of Numba; who compiles has it load the rest, half a second.
        rtsys.initialize(target_context)
        library, names, *others = pickle.loads(payload)
        # What came with the package has no code of LLVM's, by which Numba knows what is there.
        target_context.codegen()._engine._defined_symbols.update(
            (names.llvm_func_name, names.llvm_cpython_wrapper_name, names.llvm_cfunc_wrapper_name)
        )
        return CompileResult._rebuild(target_context, library, names, *others)

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or self._folder is None or data.library.has_dynamic_globals:
            return
        path = self._folder / self._file(sig, data.library.codegen.magic_tuple())
        payload = dumps(data._reduce())
        # A cache folder that cannot be written costs time, never a result.
        with Suppressed(OSError):
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_unused(path.parent)
            write_whole(path, hashlib.sha256(payload).digest() + payload, lasting=False)

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        if self._folder is not None:
            with Suppressed(OSError):
                for path in self._folder.glob(f"{self._name}-*.nbc"):
                    path.unlink()


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, its symbol in machine code made the only one of its kind.

    Numba numbers functions as they are compiled, so kernels that two processes compiled may
    have the same symbol, and a third that loads both would call one for the other. What
    a kernel calls without inlining it has to be named, too, if it is made in a closure.
    """
    function.__qualname__ = f"{function.__qualname__} of {name}"
    return function


def kernel(
    name: str, words: str = "a helper of the kernels", *, for_c: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the GIL and keep it on disk under a name of its own.

    words: what it is, for whoever waits until it is compiled. for_c: with a way in for C, whose
    address `c_address` tells.
    """

    def compile_as_kernel(function: Callable[..., Any]) -> Any:
        function = named(function, name)
        dispatcher = njit(nogil=True, error_model="numpy", no_cfunc_wrapper=not for_c)(function)
        if isinstance(dispatcher, Dispatcher):
            announce(dispatcher, words)
            cached = _KernelCache(name, cache_folder())
            setattr(dispatcher, "_cache", cached)  # noqa: B010  (untyped there)
        return dispatcher

    return compile_as_kernel


def at_hand(name: str, kinds: tuple[Any, ...]) -> bool:
    """Whether a kernel of this name, for these types of arguments, can be had without compiling."""
    codegen = cpu_target.target_context.codegen()
    return _KernelCache(name, cache_folder())._found(kinds, codegen) is not None


def c_address(dispatcher: Any, kinds: tuple[Any, ...]) -> int:
    """The address of a kernel for these types of arguments, as a C function."""
    dispatcher.compile(kinds)
    result = dispatcher.overloads[kinds]
    address: int = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
    return address


def native_address(dispatcher: Any, kinds: tuple[Any, ...]) -> int:
    """The address of a kernel for these types of arguments, as Numba's own code calls it."""
    dispatcher.compile(kinds)
    result = dispatcher.overloads[kinds]
    address: int = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
    return address
