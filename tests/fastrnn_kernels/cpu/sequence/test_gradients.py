"""The gradients that are products over all steps: what is not asked for, and how rows are read."""

from dataclasses import fields

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu import device
from fastrnn_kernels.cpu.sequence import time_products
from fastrnn_kernels.rows import Rows


def gradients(cell, T, B, I, H, *, inputs=True, beside=0, onto=None):
    """Of one pass, and the weights that it has read; `beside`: sequences of no steps, and NaN."""
    draw = np.random.default_rng(5)

    def some(*shape):
        array = draw.standard_normal(shape).astype(np.float32)
        widths = [(0, beside if n == B else 0) for n in shape]
        return np.pad(array, widths, constant_values=np.nan)

    layer = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[cell](I, H, seed=0)
    (weights,) = layer._version.weights
    rows = Rows(T, B + beside, np.array([T] * B + [0] * beside) if beside else None)
    rest = weights.cell.N - 1
    y = np.empty((T, B + beside, H), np.float32)
    run = device.start_forward(
        weights, some(T, B, I), some(B, H), some(rest, B, H), some(B, H), some(rest, B, H),
        rows, y, 0, taping=True,
    )  # fmt: skip
    device.run([run.job], run.work)
    dy, d_h, d_rest = some(T, B, H), some(B, H), some(rest, B, H)
    back = device.start_backward(run.tape, dy, 0, d_h, d_rest, inputs=inputs)
    device.run([back.job], back.work)
    return back.finish(onto), weights


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_without_the_gradient_of_x_the_others_are_the_same(cell):
    whole, weights = gradients(cell, 7, 3, 5, 20)
    assert any(name == "inputs" for _, name in weights._packed)
    some, weights = gradients(cell, 7, 3, 5, 20, inputs=False)
    assert some.x is None
    assert not any(name == "inputs" for _, name in weights._packed)
    for field in fields(whole):
        if field.name not in ("x", "w_hr"):
            assert np.array_equal(getattr(whole, field.name), getattr(some, field.name)), field.name


@pytest.mark.parametrize("I", [1, 10, 16, 17, 64, 100, 128, 129])
def test_rows_that_lie_one_behind_the_other_are_read_there_with_the_same_bits(I):
    """Beside a batch in which others lie between them, and they are copied."""
    T, B, H = 53, 4, 20  # more than one block of rows, and not a whole number of them
    assert T * B > time_products.DEPTH
    assert T * B % time_products.DEPTH
    read, _ = gradients("lstm", T, B, I, H)
    copied, _ = gradients("lstm", T, B, I, H, beside=1)
    for name in ("w_ih", "w_hh", "b_ih"):
        assert np.isfinite(getattr(read, name)).all()
        assert np.array_equal(getattr(read, name), getattr(copied, name)), name


@pytest.mark.parametrize("beside", [0, 2])
@pytest.mark.parametrize("I", [5, 64, 80])
def test_the_gradient_of_x_is_added_to_what_there_is(I, beside):
    T, B, H = 7, 9, 20
    found, _ = gradients("gru", T, B, I, H, beside=beside)
    there = np.random.default_rng(6).standard_normal(found.x.shape).astype(np.float32)
    wanted = there[:, :B] + found.x[:, :B]
    added, _ = gradients("gru", T, B, I, H, beside=beside, onto=there)
    assert added.x is there
    assert np.array_equal(added.x[:, :B], wanted)
