"""Compiled kernels, kept on disk.

Numba's own cache keys a function by its file and line: it cannot keep a kernel made in a
closure, serves a stale one when an imported file changes, and can mix up the entries of
two processes that write at once. Here one file holds one compiled signature, written in
one move; its folder's name carries a hash of every kernel source and of the versions
that compiled them.
"""

import contextlib
import hashlib
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy
from numba import njit
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps


def _root() -> Path:
    """FASTRNN_CACHE_DIR, or the user's cache folder for this platform."""
    asked = os.environ.get("FASTRNN_CACHE_DIR")
    if asked:
        return Path(asked)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastrnn"


@cache
def cache_folder() -> Path:
    """The folder of the compiled kernels of these sources, versions and this Python."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py")):
        digest.update(str(path.relative_to(here)).encode())
        digest.update(path.read_bytes())
    versions = (
        numba.__version__,
        llvmlite.__version__,
        numpy.__version__,
        platform.python_version(),
    )
    digest.update(repr(versions).encode())
    return _root() / f"kernels-{digest.hexdigest()[:16]}"


class _KernelCache(_Cache):  # type: ignore[misc]
    """What a Numba dispatcher asks for a compiled signature, and gives one to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._enabled = True

    @property
    def cache_path(self) -> str:
        return str(cache_folder())

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = repr((str(signature), codegen.magic_tuple())).encode()
        return cache_folder() / f"{self._name}-{hashlib.sha256(key).hexdigest()[:24]}.nbc"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        target_context.refresh()
        try:
            payload = pickle.loads(self._path(sig, target_context.codegen()).read_bytes())
            return CompileResult._rebuild(target_context, *payload)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, pickle.UnpicklingError):
            return None  # unreadable or cut short: compiled again, and written again

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or data.library.has_dynamic_globals:
            return
        path = self._path(sig, data.codegen if hasattr(data, "codegen") else data.library.codegen)
        # A cache folder that cannot be written costs time, never a result.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(dumps(data._reduce()))
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            for path in cache_folder().glob(f"{self._name}-*.nbc"):
                path.unlink()


def kernel(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function without the GIL and keep it on disk under a name of its own."""

    def compile_as_kernel(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, error_model="numpy")(function)
        if hasattr(dispatcher, "_cache"):  # not when jitting is switched off
            dispatcher._cache = _KernelCache(name)
        return dispatcher

    return compile_as_kernel
