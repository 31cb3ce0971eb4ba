"""Own cells (`own_cells.py`) in the grids of the tests, and in tests of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compilers
from own_cells import OWN

ROOT = Path(__file__).parent
#: Those that mix what no cell of `fastrnn.cells` has together; the others' sort has its tests there
#: (`fastrnn/cells/test_cells.py`).
MIXED = ("PeepholeGRU", "XGRU")

#: Tests of the grids that hold cells to their reference, and of which cells.
GRIDS = {
    "fastrnn/models/test_layers_values.py::test_stacks_directions_lengths_and_resets": MIXED,
    "fastrnn/models/test_layers_gradients.py::test_gradients": MIXED,
    "fastrnn/models/test_layers_teams.py": OWN,
    "fastrnn_kernels/cells/test_equations.py": OWN,
    "cases_own_cells.py": ("cases_own_cells",),
}
CUDA = (
    "fastrnn/models/test_cuda_layers.py",
    "fastrnn/streams/test_cuda_stream.py",
    "fastrnn_kernels/cuda/stepwise/test_cuda_stepwise.py",
)


def passed(test, kinds, **settings):
    """Run a test of some cells in a process that knows them; what it says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "own_cells", "-p", "no:cacheprovider"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "-p", "no:xdist", "-k", " or ".join(kinds), str(ROOT / test)],
        cwd=ROOT.parent,
        env={**os.environ, "PYTHONPATH": paths, **settings},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("test", GRIDS)
def test_the_grids_hold_them_to_their_reference(test):
    assert " passed" in passed(test, GRIDS[test])


@pytest.mark.compilers
@pytest.mark.parametrize("test", CUDA)
def test_the_simulators_grids_too(test):
    compilers.need("numba_cuda")
    assert " passed" in passed(test, OWN, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
