"""Own cells (`own_cells.py`) in the grids of the tests, and in tests of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compilers
from own_cells import OWN

ROOT = Path(__file__).parent
#: All tests of their own, and of the grids those that name one of them.
KINDS = " or ".join(["cases_own_cells", *OWN])

#: Tests of the grids that hold cells to their reference, and ways to run them to each other.
GRIDS = (
    "fastrnn/models/test_layers_values.py::test_stacks_directions_lengths_and_resets",
    "fastrnn/models/test_layers_values.py::test_gates",
    "fastrnn/models/test_layers_gradients.py::test_gradients",
    "fastrnn/models/test_cells_values.py",
    "fastrnn/models/test_layers_bits.py::test_threads",
    "fastrnn/models/test_layers_bits.py::test_a_sequence_may_be_cut_anywhere",
    "fastrnn/models/test_layers_teams.py",
    "fastrnn/models/test_bfloat16.py",
    "fastrnn/streams/test_stream_values.py::test_cells_stream",
    "fastrnn/streams/test_stream_any_sizes.py::test_bits_of_all_sizes",
    "fastrnn/weights/test_weights_files.py::test_round_trip",
    "fastrnn_kernels/cells/test_equations.py",
    "cases_own_cells.py",
)
CUDA = (
    "fastrnn/models/test_cuda_layers.py",
    "fastrnn/models/test_cuda_rehearsal.py",
    "fastrnn/streams/test_cuda_stream.py",
    "fastrnn_kernels/cuda/stepwise/test_cuda_stepwise.py",
    "fastrnn_kernels/cuda/resident/test_cuda_resident.py",
)


def passed(tests, **settings):
    """Run tests of these cells in a process that knows them; the last words of what it says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "own_cells", "-p", "no:cacheprovider"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "-p", "no:xdist", "-k", KINDS, *(str(ROOT / test) for test in tests)],
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
    assert " passed" in passed([test])


@pytest.mark.compilers
@pytest.mark.parametrize("test", CUDA)
def test_the_simulators_grids_too(test):
    compilers.need("numba_cuda")
    assert " passed" in passed([test], NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
