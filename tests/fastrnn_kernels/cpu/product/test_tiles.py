"""Products of the matrix unit: to the bit what its manual says, here or emulated."""

import subprocess
import sys

import numpy as np
import pytest

import fastrnn
import tiles_emulated
from cases import make, problem
from fastrnn_kernels import bfloat16
from fastrnn_kernels.cpu.isa import host
from fastrnn_kernels.cpu.isa.instruction_set import AMX, AVX512_BF16

HAS_UNIT = pytest.mark.skipif(not host.HOST.tiles, reason="this host has no matrix unit (AMX)")
#: Of each form that the loops have, one.
CELLS = ["RNN-tanh", "GRU-reset-before", "LSTM-projected"]


def layer_of(cell, I, H, **arguments):
    if cell == "LSTM-projected":
        arguments["proj_size"] = min(11, H // 2)
        cell = "LSTM"
    return make(cell, I, H, dtype="bfloat16", **arguments)


def outputs(cell):
    """Rows that fill no tile, one, and more than one; pairs that do and do not; ragged ones."""
    found = []
    for T, B, I, H, lengths in (
        (3, 1, 1, 2, None),
        (4, 7, 33, 37, [4, 1, 0, 3, 4, 2, 2]),
        (2, 16, 64, 32, None),
        (2, 33, 14, 48, None),
        (1, 50, 100, 21, None),
    ):
        layer = layer_of(cell, I, H, bidirectional=True)
        p = problem(layer, T, B)
        y, state = layer(p.x, lengths=lengths)
        found += [y, *(state if isinstance(state, tuple) else (state,))]
    return found


def test_rows_do_not_depend_on_those_beside_them(monkeypatch):
    layer = layer_of("RNN-tanh", 30, 40)
    x = np.random.default_rng(0).standard_normal((3, 40, 30), np.float32)
    with tiles_emulated.emulating(monkeypatch):
        whole = layer(x)[0]
        for some in (slice(0, 1), slice(3, 20), slice(7, 40)):
            assert np.array_equal(layer(np.ascontiguousarray(x[:, some]))[0], whole[:, some])


@pytest.mark.parametrize("cell", CELLS)
def test_values_are_those_of_pairs_but_for_the_order_of_sums(cell, monkeypatch):
    with tiles_emulated.emulating(monkeypatch):
        found = outputs(cell)
    with host.compiling_for(AVX512_BF16 if host.HOST.tiles else host.HOST):
        wanted = outputs(cell)
    for one, other in zip(found, wanted, strict=True):
        # A rounding of h to bfloat16 that falls the other way is 2**-9 of it.
        np.testing.assert_allclose(one, other, atol=4e-3)
        assert np.mean(np.abs(one - other)) < 2e-4


@HAS_UNIT
@pytest.mark.parametrize("cell", CELLS)
def test_the_unit_computes_what_the_emulation_does(cell, monkeypatch):
    found = outputs(cell)
    with tiles_emulated.emulating(monkeypatch):
        wanted = outputs(cell)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)


def test_a_sum_is_that_of_the_manual(monkeypatch):
    """One step of an RNN with a relu: 45 inputs, 1 unit; 7 pairs first, then a whole tile."""
    layer = fastrnn.RNN(45, 1, nonlinearity="relu", bias=False, seed=0, dtype="bfloat16")
    x = np.abs(np.random.default_rng(1).standard_normal((1, 1, 45), np.float32))
    weight = np.abs(layer.parameters["weight_ih_l0"])
    layer.update({"weight_ih_l0": weight, "weight_hh_l0": np.zeros((1, 1), np.float32)})
    pairs = np.zeros((2, 46), np.float32)
    pairs[:, :45] = [bfloat16.values(bfloat16.bits(one.reshape(-1))) for one in (x, weight)]
    a, b = pairs.astype(np.float64).reshape(2, 23, 2)
    total = np.float32(0)
    for some in (slice(16, 23), slice(0, 16)):
        chains = [np.float32(0), np.float32(0)]
        for k in range(*some.indices(23)):
            for half in range(2):
                chains[half] = np.float32(chains[half] + a[k, half] * b[k, half])
        total = np.float32(total + np.float32(chains[0] + chains[1]))
    with tiles_emulated.emulating(monkeypatch):
        assert layer(x)[0].item() == total
    if host.HOST.tiles:
        assert layer(x)[0].item() == total


@HAS_UNIT
def test_beside_torchs_own_use_of_the_unit():
    """Each finds the tiles as it needs them, call by call, in one thread."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    a = torch.randn(64, 64, dtype=torch.bfloat16)
    wanted = a @ a
    layer = layer_of("LSTM", 30, 40)
    x = np.random.default_rng(0).standard_normal((3, 20, 30), np.float32)
    y = layer(x)[0]
    for _ in range(20):
        assert torch.equal(a @ a, wanted)
        assert np.array_equal(layer(x)[0], y)


@HAS_UNIT
def test_without_leave_the_next_best_is_used():
    """Where the system refuses the unit, as a sandbox may: right values, no crash."""
    script = (
        "import ctypes\n"
        "real = ctypes.CDLL\n"
        "class Refusing:\n"
        "    def __init__(self, *args, **kwargs): self._real = real(*args, **kwargs)\n"
        "    def __getattr__(self, name):\n"
        "        return (lambda *a: -1) if name == 'syscall' else getattr(self._real, name)\n"
        "ctypes.CDLL = Refusing\n"
        "from fastrnn_kernels.cpu.isa import host\n"
        "ctypes.CDLL = real\n"
        "assert host.HOST.name == 'avx512bf16', host.HOST.name\n"
        "import numpy as np, fastrnn\n"
        "y, _ = fastrnn.RNN(3, 4, dtype='bfloat16')(np.ones((2, 1, 3), np.float32))\n"
        "assert np.isfinite(y).all()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_unit_needs_what_it_names():
    assert AMX.needs > AVX512_BF16.needs
    assert host.runs_here(AMX) == host.HOST.tiles
