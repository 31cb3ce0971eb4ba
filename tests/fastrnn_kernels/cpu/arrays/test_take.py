"""Arrays as kernels take them: C-contiguous, with the same values, wherever their rows lie."""

import numpy as np
import pytest

from fastrnn_kernels.cpu.arrays.take import take

DRAW = np.random.default_rng(0)


def floats(*shape, dtype=np.float32):
    return DRAW.standard_normal(shape).astype(dtype)


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    other = raw[1:].view(array.dtype).reshape(array.shape)
    other[...] = array
    return other


ARRAYS = {
    "contiguous": floats(4, 5, 6),
    "batch first": floats(4, 5, 6).swapaxes(0, 1),
    "large": floats(40, 50, 60, dtype=np.float64).swapaxes(0, 1),
    "backwards": floats(4, 5, 6)[::-1],
    "every other row": floats(4, 5, 6)[:, ::2],
    "every other value": floats(4, 5, 6)[..., ::2],
    "some values": floats(4, 5, 6)[..., 1:4],
    "transposed": floats(4, 5, 6).T,
    "one for all": np.broadcast_to(floats(1, 5, 6), (4, 5, 6)),
    "no rows": floats(0, 5, 6).swapaxes(0, 1),
    "no values": floats(4, 5, 0).swapaxes(0, 1),
    "two axes": floats(4, 5),
    "two axes, transposed": floats(4, 5).T,
    "booleans": floats(4, 5, 6) > 0,
    "booleans, batch first": (floats(4, 5, 6) > 0).swapaxes(0, 1),
    "read-only": read_only(floats(4, 5, 6)),
    "read-only, batch first": read_only(floats(4, 5, 6)).swapaxes(0, 1),
    "unaligned": unaligned(floats(4, 5, 6)),
    "unaligned, batch first": unaligned(floats(4, 5, 6)).swapaxes(0, 1),
}


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("name", ARRAYS)
def test_values_stay_and_lie_as_kernels_read_them(name, copy):
    array = ARRAYS[name]
    wanted = array.copy()
    taken = take(array, copy=copy)
    assert taken.flags.carray
    assert taken.dtype == array.dtype
    assert np.array_equal(taken, wanted)
    dense = array.flags.c_contiguous and array.flags.aligned
    shares = np.shares_memory(taken, array)
    assert shares == (not copy and dense and array.size > 0)
    if not shares and array.size:
        taken[...] = taken == 0
        assert np.array_equal(array, wanted)


def test_an_array_of_a_gpu_is_refused_by_name():
    with pytest.raises(TypeError, match="x lies on a GPU"):
        take(object(), "x")
