"""Copies see every bit that changes in the memory they were made from."""

import numpy as np
import pytest

from fastrnn_kernels.cpu.arrays.compare import Copies


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 7, 2048, 2049, 10_000])
def test_every_change_is_seen(dtype, size):
    arrays = [np.zeros(3, dtype), np.full(size, 0.5, dtype), np.zeros((2, 2), dtype)]
    copies = Copies(arrays)
    assert copies.current()
    for at in {0, size // 2, size - 1}:
        for array, value in ((arrays[1], np.nextafter(dtype(0.5), dtype(1))), (arrays[2], -0.0)):
            index = at % array.size
            old = array.flat[index]
            array.flat[index] = value
            assert not copies.current()
            array.flat[index] = old
            assert copies.current()
    assert all(np.array_equal(one, other) for one, other in zip(copies.arrays, arrays, strict=True))


@pytest.mark.smoke
def test_nan_is_itself_and_copies_are_apart():
    array = np.array([np.nan, 1.0])
    copies = Copies([array])
    assert copies.current()
    assert not np.shares_memory(copies.arrays[0], array)


def test_of_what_is_not_contiguous_it_cannot_be_said():
    array = np.arange(6.0).reshape(2, 3).T
    copies = Copies([array])
    assert not copies.current()
    assert np.array_equal(copies.arrays[0], array)


def test_nothing_to_compare():
    assert Copies([np.zeros((0, 3))]).current()
    assert Copies([np.zeros((0, 3))]).equal([np.zeros((0, 3))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_elsewhere_are_compared(dtype):
    arrays = [np.arange(6, dtype=dtype).reshape(2, 3), np.array([np.nan, 0.0], dtype)]
    copies = Copies(arrays)
    assert copies.equal([array.copy() for array in arrays])
    assert copies.equal([np.asfortranarray(arrays[0]), arrays[1]])
    for others in (
        [arrays[0] + [0, 0, 1], arrays[1]],
        [arrays[0], np.array([np.nan, -0.0], dtype)],
        [arrays[0].reshape(3, 2), arrays[1]],
        [arrays[0].astype(np.int32), arrays[1]],
        arrays[:1],
        arrays[::-1],
        [*arrays, arrays[0]],
    ):
        assert not copies.equal(others)
