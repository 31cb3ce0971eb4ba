"""Results are those of `fixtures/digests.json`, bit for bit (`digests.py` made them)."""

import json
from contextlib import nullcontext

import pytest

import digests
from fastrnn_kernels.cpu.isa.host import compiling_for, current
from fastrnn_kernels.cpu.isa.instruction_set import AVX512_BF16

KEPT = json.loads(digests.FILE.read_text())["fma" if current().fused else "plain"]


def kept(cell, dtype, stream):
    """The digests of a cell and type, of streams or of passes."""
    begin = f"{cell} {dtype} "
    found = {name.removeprefix(begin): d for name, d in KEPT.items() if name.startswith(begin)}
    return {name: d for name, d in found.items() if name.startswith("stream") == stream}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("cell", dict.fromkeys(name.partition(" ")[0] for name in KEPT))
def test_passes(cell, dtype):
    if dtype == "bfloat16" and not current().pairs:
        pytest.skip("the digests of bfloat16 are of a CPU that multiplies pairs of it")
    # A matrix unit adds in another order, and has tests of its own.
    by_pairs = compiling_for(AVX512_BF16) if current().tiles else nullcontext()
    with by_pairs if dtype == "bfloat16" else nullcontext():
        assert dict(digests.passes(cell, dtype)) == kept(cell, dtype, stream=False)


@pytest.mark.parametrize(("cell", "stored"), [("LSTM", "int8"), ("GRU", "int8"), ("GRU", None)])
def test_streams_of_one_row(cell, stored):
    """Those of int8, and one in full: others take seconds each to compile, and are held to the
    bits of a layer, in full and with weights rounded to bfloat16, where streams are tested."""
    wanted = kept(cell, "float32", stream=True)
    ((name, found),) = digests.streams(cell, "float32", (1,), (stored,))
    assert found == wanted[name]
