"""A fork finds no lock of a compiler held by a thread that the child does not have."""

import os
import threading

import llvmlite.binding as llvm
import pytest
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

import fastrnn_kernels.cache.disk  # noqa: F401  (which looks after these)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")


@pytest.mark.parametrize("lock", [global_compiler_lock._lock, ffi.lib._lock._lock])
def test_a_fork_waits_for_what_holds_a_lock(lock):
    """And both can be had in the child: LLVM answers there."""
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            let_go.wait(0.3)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    child = os.fork()
    if child == 0:
        free = all(one.acquire(timeout=5) for one in (lock, global_compiler_lock._lock))
        os._exit(0 if free and llvm.get_default_triple() else 1)
    assert other.ident is not None
    assert os.waitpid(child, 0)[1] == 0
    other.join()
    assert lock.acquire(blocking=False)
    lock.release()
