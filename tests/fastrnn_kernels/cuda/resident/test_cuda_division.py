"""Divisions of resident passes: all of R and of a batch is somebody's, and finds room."""

import itertools

import numpy as np
import pytest

import compilers
from fastrnn_kernels.cells.lstm import LSTM
from fastrnn_kernels.cells.rnn import RNN_TANH

compilers.need("numba_cuda")
from fastrnn_kernels.cuda.resident.division import (  # noqa: E402
    CLUSTERED,
    WARP,
    Gpu,
    all_blocks,
    divide,
    one_block,
)

pytestmark = pytest.mark.compilers

GPUS = {
    "old": Gpu(40, 64 << 10, (7, 5)),
    "H100": Gpu(132, 227 << 10, (9, 0)),
    "three": Gpu(3, 48 << 10, (8, 0)),
}
SIZES = list(itertools.product((1, 7, 64, 113, 256, 768), (1, 17, 500)))


@pytest.mark.smoke
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("compute", "item"), [("", 4), ("", 8), ("tf32", 4), ("bfloat16", 4)])
@pytest.mark.parametrize("way", [one_block, all_blocks])
def test_everything_has_its_place(way, compute, item, backward, gpu):
    gpu, found = GPUS[gpu], 0
    for cell, (H, B) in itertools.product((RNN_TANH, LSTM), SIZES):
        one = way(cell, H, B, item, gpu, backward, compute)
        if one is None:
            continue
        found += 1
        assert one.shared_bytes <= gpu.shared_bytes
        assert one.registers <= 255
        assert -(-one.threads // 128) * 128 * one.registers <= 65536
        assert one.threads <= 1024
        assert one.threads % WARP == 0
        assert max(one.workers, one.rows * one.units) <= one.threads
        assert 0 <= one.held <= one.fragments
        assert one.rows % one.group == 0
        assert one.padded_depth >= one.depth
        assert one.padded_width >= one.width
        assert one.lanes * one.columns * (8 if one.compute else 1) >= one.width
        sharing = one.blocks if one.gridded else one.cluster
        assert H <= sharing * one.units < H + one.units
        if one.gridded:
            assert one.blocks <= gpu.multiprocessors
            assert one.exchanged(B) >= B * one.depth / (2 if one.compute == "bfloat16" else 1)
        else:
            assert one.blocks // one.cluster * one.rows >= B
            assert one.cluster == 1 or gpu.capability >= CLUSTERED
        assert not one.compute or (one.compute == compute and B >= 8)
        # 16 bytes at a time, and two words of a tile's sums.
        assert one.operand_at * item % 16 == 0
        assert one.padded_depth * item % 16 == 0
        assert not one.compute or one.sums_at % 2 == one.padded_width % 2 == 0
        assert one.seconds(B) > 0
    assert found > 5


@pytest.mark.parametrize("way", [one_block, all_blocks])
def test_parts_of_sums_do_not_follow_from_the_batch(way):
    """So a row has the same bits in any batch, but for clusters, whose size follows from it."""
    gpu = GPUS["H100"]._replace(capability=(8, 0))
    for H in (64, 100, 256, 768):
        parts = {
            one.parts
            for B in (1, 2, 5, 16, 64, 300)
            if (one := way(LSTM, H, B, 4, gpu, False)) is not None
        }
        assert len(parts) <= 1


def test_small_layers_take_one_block_larger_ones_a_cluster_and_the_largest_all():
    gpu = GPUS["H100"]
    taken = [divide(LSTM, H, 16, 4, gpu, False) for H in (64, 256, 768, 4096)]
    assert [one and (one.gridded, one.cluster > 1) for one in taken] == [
        (False, False), (False, True), (True, False), None
    ]  # fmt: skip
    # All of R of the first is in registers, or nearly.
    assert taken[0].held / taken[0].fragments > 0.9
    assert np.isclose(taken[2].units, 768 / 132, atol=1)
