"""What compiled kernels depend on beside the CPU, as names of the folders that keep them."""

import hashlib
import os
import platform
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy
from numba.core import config


@cache
def sources() -> str:
    """A hash of every kernel source of the CPU; the GPU's are compiled anew in each process."""
    digest, here = hashlib.sha256(), Path(__file__).parents[1]
    found = []
    for folder, folders, files in os.walk(here):  # a tenth of what Path.rglob takes
        if folder == str(here):
            folders[:] = [name for name in folders if name not in ("cuda", "precompiled")]
        found += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    for path in sorted(found):
        digest.update(os.path.relpath(path, here).encode())
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


def _key(*versions: Any) -> str:
    compilers = (
        numba.__version__,
        llvmlite.__version__,
        *versions,
        sys.implementation.cache_tag,
        sysconfig.get_config_var("Py_GIL_DISABLED"),
    )
    settings = [
        str(getattr(config, name, None))
        for name in ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")
    ]
    digest = hashlib.sha256(repr((sources(), compilers, settings)).encode())
    return digest.hexdigest()[:16]


def exact() -> str:
    """The key of what was compiled on this machine, for it."""
    return _key(numpy.__version__, platform.python_version())


def portable() -> str:
    """The key of what was compiled on another machine, as far as it depends on this.

    Of Python and NumPy the versions that say where structures in memory or bytecode differ: who
    installs a wheel has others than who has built it.
    """
    return _key(numpy.__version__.partition(".")[0])
