"""Kernels compiled for GPUs that are not here: no spills, no float64 where none is meant.

The registers of each are held against tests/fastrnn_kernels/cuda/cuda_resources.txt, which

    python -m fastrnn_kernels.cuda.ptx --table tests/fastrnn_kernels/cuda/cuda_resources.txt

writes anew.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from numba import config

import compilers

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="Numba's simulator has no compiler"),
]

if not config.ENABLE_CUDASIM:
    compilers.need("numba_cuda")
    from cuda_driver import Driver, parameters
    from fastrnn_kernels.cuda import ptx

    try:
        ptx.assembler()
    except FileNotFoundError as error:
        compilers.missing(str(error))

    def named(dtype, capability):
        return {kernel.name: kernel for kernel in ptx.kernels(np.dtype(dtype), capability)}

    FOR_9_0 = [(dtype, name) for dtype in ("float32", "float64") for name in named(dtype, (9, 0))]
    OTHERS = [
        (capability, name)
        for capability in ptx.GPUS
        if capability != (9, 0)
        for name in named("float32", capability)
        # Resident kernels of one cell stand for all: `python -m fastrnn_kernels.cuda.ptx` has them.
        if "resident" not in name or name.startswith("lstm")
    ]
else:
    FOR_9_0 = OTHERS = []

TABLE = Path(__file__).with_name("cuda_resources.txt")
#: Another version of Numba may take some more registers for the same kernel.
ROOM = 1.15


def look(dtype, name, capability):
    kernel = named(dtype, capability)[name]
    words, fault, text = kernel.look(capability)
    assert not fault
    look_at_a_launch(kernel.kernel, text)
    return words, text


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


@pytest.mark.parametrize(
    ("dtype", "name"),
    # Resident kernels of relu are those of tanh with another function: the module looks at them.
    [(dtype, name) for dtype, name in FOR_9_0 if not name.startswith("rnn_relu resident")],
)
def test_kernels_for_9_0(dtype, name):
    words, text = look(dtype, name, (9, 0))
    committed = re.search(rf"^{dtype} {re.escape(name)}: (.*)", TABLE.read_text(), re.MULTILINE)
    assert committed, f"{TABLE.name} lacks {dtype} {name}: write it anew"
    found, wanted = ([int(n) for n in re.findall(r"\d+", line)] for line in (words, committed[1]))
    assert found[0] <= ROOM * wanted[0]
    assert found[1] == wanted[1]
    if "resident" in name:
        look_at_the_exchange(text)


def look_at_the_exchange(text):
    """What other blocks have written is read past the first-level cache, and nothing else is
    taken to be constant."""
    assert "ld.global.nc" not in text
    assert ("st.shared::cluster" in text) == ("barrier.cluster.wait.acquire" in text)
    shared = "red.release.gpu" in text
    assert shared == ("ld.acquire.gpu" in text) == ("ld.global.cg" in text)


@pytest.mark.parametrize(("capability", "name"), OTHERS, ids=str)
def test_kernels_for_others(capability, name):
    look("float32", name, capability)


def test_kernels_that_draw():
    """With zoneout and dropout of the candidate, and with h masked."""
    from fastrnn_kernels.cuda.stepwise.backward import backward_kernels
    from fastrnn_kernels.cuda.stepwise.forward import forward_kernels
    from fastrnn_kernels.equations import regularised, variants
    from fastrnn_kernels.equations.activations import SIGMOID, TANH

    usual = variants.lstm_equations(SIGMOID, TANH, TANH, None, False, False)
    cell = regularised.training(usual, ("h", "c"), "g")
    for make in (forward_kernels, backward_kernels):
        kernel = ptx.Named("draws", make(cell, np.dtype(np.float32), False, True).gates)
        _, fault, text = kernel.look((9, 0))
        assert not fault
        look_at_a_launch(kernel.kernel, text)


def test_the_table_has_no_other_kernels():
    named = re.findall(r"^(\w+) (.*):", TABLE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(FOR_9_0)


def test_ptx_is_not_moved_behind_conditions():
    """Of what warps, blocks or clusters do together the compiler is told so."""
    from llvmlite import ir

    from fastrnn_kernels.cuda.isa.operations import Emitted

    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "meets")
    builder = ir.IRBuilder(function.append_basic_block())
    emitted = Emitted(None, builder, {})
    emitted.arrive_in_cluster(2)
    emitted.wait_in_cluster(2)
    word, value = ir.Constant(ir.IntType(32), 0), ir.Constant(ir.FloatType(), 0)
    emitted.tensor([word] * 4, [word] * 2, [value] * 4, "tf32")
    calls = [line for line in str(builder.block).splitlines() if "asm sideeffect" in line]
    assert len(calls) == 3
    assert all("convergent" in line.rpartition(")")[2] for line in calls)


def test_a_kernel_that_spills_is_found():
    """The check can fail: what indexes an array of its own by a variable needs a stack."""
    from numba import cuda, types

    from fastrnn_kernels.cuda.launch.kernel import Kernel

    def spills(array, at, n):
        own = cuda.local.array(64, types.float32)
        for k in range(n):
            own[(k * at) % 64] = array[k]
        array[at] = own[at % 64] * 1.1

    kernel = Kernel(spills, np.dtype(np.float32), "vii")
    text = ptx.compiled(kernel, (9, 0))
    assert ptx.assembled(text, (9, 0)).stack > 0
    assert ".f64" in text
