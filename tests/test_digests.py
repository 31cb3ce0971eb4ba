"""Results are those of `fixtures/digests.json`, bit for bit (`digests.py` made them)."""

import json

import pytest

import digests
from fastrnn_kernels.cpu.isa.host import current

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
    assert dict(digests.passes(cell, dtype)) == kept(cell, dtype, stream=False)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_streams_of_one_row(cell):
    """In full, as bfloat16 and as int8. Others take seconds each to compile, and prove the same."""
    wanted = kept(cell, "float32", stream=True)
    found = dict(digests.streams(cell, "float32", batches=(1,)))
    assert found == {name: d for name, d in wanted.items() if name.startswith("stream 1 ")}
    assert len(found) == 3
