"""Fixtures for all tests: memory that shows when it was never written, and data for tests."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn_kernels.cpu import device as cpu
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.threads import board, pool

LIBRARY = ("fastrnn", "fastrnn_kernels")
#: Tests in the order in which processes take them, by how their names begin: first a long one that
#: compiles for itself alone, while another process compiles what all of them use; then what else
#: takes long, so that all processes end together; last many short ones.
ORDER = (
    "tests/test_cuda_simulator.py",
    "tests/test_new_cell.py",
    "tests/test_own_cells.py",
    "tests/fastrnn/models",
    "tests/fastrnn_kernels/cpu/isa/test_hosts.py",
    "tests/fastrnn/keras",
    "tests/fastrnn/streams",
    "tests/fastrnn/test_export.py",
    "tests/fastrnn_kernels/cache",
    "tests/fastrnn/onnx",
    "tests/test_",
    "tests/fastrnn/bench",
    "tests/fastrnn/cli",
    "",
    "tests/fastrnn_kernels/cuda/test_cuda_ptx.py",
)
#: Files whose tests have few kernels in common; the tests of others stay with one process.
APART = (
    "keras/test_backends.py",
    "isa/test_hosts.py",
    "tests/test_interrupts.py",
    "weights/test_weights_fuzz.py",
)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into ORDER, each place's as they were."""
    begins = sorted(ORDER, key=len, reverse=True)

    def place(item: pytest.Item) -> int:
        return ORDER.index(next(b for b in begins if item.nodeid.startswith(b)))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give processes whole files: each loads, and keeps in memory, what its own tests use."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if file.endswith("test_cuda_ptx.py"):  # of a kernel, for one GPU after the other
                return test.partition("-")[2] or file
            return nodeid if file.endswith(APART) else file

    config.option.loadscopereorder = False
    return Files(config, log)


def nan_filled(allocate: Callable[..., Any]) -> Callable[..., Any]:
    """An allocating function, its arrays filled with NaN where the library asks for floats.

    Only calls from the library's own modules are changed; Numba's, NumPy's and the tests'
    get what they always get.
    """

    def filled(*args: Any, **kwargs: Any) -> Any:
        array = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.partition(".")[0] in LIBRARY:
            if array.dtype.kind in "fc":
                array.fill(np.nan)
            elif array.dtype == np.int32:  # pairs of bfloat16
                array.fill(-1)
        return array

    return filled


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """An element that the library never writes comes out as NaN, not as a lucky zero."""
    monkeypatch.setattr(np, "empty", nan_filled(np.empty))
    monkeypatch.setattr(np, "empty_like", nan_filled(np.empty_like))
    for module in (memory, cpu):
        monkeypatch.setattr(module, "empty", nan_filled(memory.empty))


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Every helper that a test asks for finds a CPU, also on a machine with two."""
    words = pool._pool.board
    before = int(words[board.ROOM])
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_room", lambda: (frozenset(), board.MOST_HELPERS))
        words[board.ROOM] = board.MOST_HELPERS
        yield patch
    words[board.ROOM] = before


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of trained models and golden outputs that lies beside the repository."""
    if not DATA.is_dir():
        pytest.skip("the shared test data (../shared/data, beside the repository) are not here")
    return DATA
