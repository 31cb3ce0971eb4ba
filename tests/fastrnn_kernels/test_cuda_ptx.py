"""Kernels compiled for GPUs that are not here: no spills, no float64 where none is meant.

The registers of each are held against tests/fastrnn_kernels/cuda_resources.txt, which

    python -m fastrnn_kernels.cuda.ptx --table tests/fastrnn_kernels/cuda_resources.txt

writes anew.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from numba import config

pytestmark = pytest.mark.skipif(
    bool(config.ENABLE_CUDASIM), reason="Numba's simulator has no compiler"
)

if not config.ENABLE_CUDASIM:
    pytest.importorskip("numba_cuda")
    from cuda_driver import Driver, parameters
    from fastrnn_kernels.cuda import ptx
    from fastrnn_kernels.cuda.division import MOST_THREADS
    from fastrnn_kernels.cuda.kernel import BLOCK

    NAMES = [name for name, _ in ptx.kernels(np.dtype(np.float32))]
else:
    NAMES = []

TABLE = Path(__file__).with_name("cuda_resources.txt")
#: Another version of Numba may take some more registers for the same kernel.
ROOM = 1.15


def look(name, dtype, capability):
    kernel = dict(ptx.kernels(np.dtype(dtype)))[name]
    text = ptx.compiled(kernel, capability)
    found = ptx.assembled(text, capability)
    assert (found.spilled, found.stack) == (0, 0)
    assert found.warps(MOST_THREADS if "resident" in name else BLOCK) > 0
    if dtype == "float32":
        assert ".f64" not in text
    look_at_a_launch(kernel, text)
    return found


def look_at_a_launch(kernel, text):
    """Each argument lies where the driver reads it, of the size that the PTX declares."""
    sizes = parameters(text)
    assert sizes == [1 if letter == "b" else 8 for letter in kernel.arguments]
    values = [k % 2 if size == 1 else (1 << 40) + k for k, size in enumerate(sizes)]
    with Driver() as driver:
        driver.loaded(kernel).launch(2, 32, 64, 7, values, False, 1)
    (launch,) = driver.launches
    assert launch.values(sizes) == values
    assert (launch.blocks, launch.threads, launch.shared_bytes, launch.stream) == (2, 32, 64, 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_for_9_0(name, dtype):
    found = look(name, dtype, (9, 0))
    committed = re.search(rf"^{dtype} {name}: (\d+) registers", TABLE.read_text(), re.MULTILINE)
    assert committed, f"{TABLE.name} lacks {dtype} {name}: write it anew"
    assert found.registers <= ROOM * int(committed[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (10, 0)], ids=str)
def test_kernels_for_others(name, capability):
    look(name, "float32", capability)


def test_the_table_has_no_other_kernels():
    lines = TABLE.read_text().splitlines()
    named = {line.partition(" ")[2].partition(":")[0] for line in lines}
    assert named == set(NAMES)
    assert len(lines) == 2 * len(NAMES)


def test_a_kernel_that_spills_is_found():
    """The check can fail: what indexes an array of its own by a variable needs a stack."""
    from numba import cuda, types

    from fastrnn_kernels.cuda.kernel import Kernel

    def spills(array, at, n):
        own = cuda.local.array(64, types.float32)
        for k in range(n):
            own[(k * at) % 64] = array[k]
        array[at] = own[at % 64] * 1.1

    kernel = Kernel(spills, np.dtype(np.float32), "vii")
    text = ptx.compiled(kernel, (9, 0))
    assert ptx.assembled(text, (9, 0)).stack > 0
    assert ".f64" in text
