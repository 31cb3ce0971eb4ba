"""Recipes of stacks: what passes give that are prepared one by one, bit for bit."""

import numpy as np
import pytest

import fastrnn
from fastrnn_kernels.cpu.arrays import memory
from fastrnn_kernels.cpu.sequence import packs, stacks, stacks_backward
from fastrnn_kernels.cpu.sequence.stacks_backward import BATCH_FIRST, TIME_FIRST, Wanted
from fastrnn_kernels.cpu.threads.job import WORDS

T, B, I, H = 4, 3, 5, 6
KINDS = {
    "LSTM": {}, "GRU": {}, "RNN": {}, "projected": {"proj_size": 3}, "late": {"reset_after": False},
}  # fmt: skip
NAMES = {"projected": "LSTM", "late": "GRU"}


def at(array):
    return array.__array_interface__["data"][0]


def made(kind, **options):
    """A layer of two layers and both directions, and what recipes are made for."""
    name, more = NAMES.get(kind, kind), {**KINDS[kind], **options}
    layer = getattr(fastrnn, name)(I, H, 2, bidirectional=True, seed=1, device="cpu", **more)
    sizes = I, H, layer.state_size, 2, 2, str(layer.dtype), layer.bias, bool(layer.proj_size)
    return layer, stacks.Stacked(layer._cell, T, B, *sizes)


def drawn(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def spoil_memory():
    """Leave words behind, in memory that comes next, that look like places of a recipe."""
    kept = [np.full(WORDS, 0x5A << 56 | 1 << 48 | 8, np.int64) for _ in range(200)]
    kept.clear()


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"dtype": "float64"}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_passes_have_the_same_bits(kind, options):
    layer, of = made(kind, **options)
    dtype, weights = layer.dtype, layer._version.weights
    x = drawn((T, B, I), dtype)
    start = [drawn(shape, dtype, n) for n, shape in enumerate(of.states)]
    y, final, tape = layer.forward(x, tuple(start) if len(start) > 1 else start[0])
    finals = final if isinstance(final, tuple) else (final,)
    assert stacks.can_be(of)
    spoil_memory()
    room = None
    for taping in (False, True):
        recipe = stacks.forward(of, taping)
        found = [np.empty_like(y), *map(np.empty_like, finals)]
        if taping:
            room = memory.aligned(recipe.tape_bytes, np.dtype(np.uint8))
        panels = [one.forward().address for one in weights]
        given = [*map(at, (x, *start)), *panels, *map(at, found)]
        recipe.recipe.run([*given, at(room)] if taping else given)
        for one, other in zip(found, (y, *finals), strict=True):
            assert np.array_equal(one, other)

    dy, d_final = drawn(y.shape, dtype, 2), [drawn(one.shape, dtype, 3) for one in finals]
    wanted = layer.backward(tape, dy, tuple(d_final) if len(d_final) > 1 else d_final[0])
    d_start = wanted.state if isinstance(wanted.state, tuple) else (wanted.state,)
    swapped = np.ascontiguousarray(dy.swapaxes(0, 1))
    for lies, d_y in ((TIME_FIRST, dy), (BATCH_FIRST, swapped)):
        for inputs, states in ((True, True), (False, False)):
            dx, starts = np.full_like(x, 7), [np.full_like(one, 7) for one in start]
            found = [np.empty_like(one) for one in wanted.parameters.values()]
            stacks_backward.backward(of, Wanted(lies, True, inputs, states)).run(
                [
                    *map(at, (room, x, d_y, *d_final)),
                    *[one.backward().address for one in weights],
                    *[at(one.input_panels()) for one in weights],
                    *map(at, (dx, *starts, *found)),
                ]
            )
            for one, other in zip(found, wanted.parameters.values(), strict=True):
                assert np.array_equal(one, other)
            assert np.array_equal(dx, wanted.x if inputs else np.full_like(x, 7))
            for one, other in zip(starts, d_start, strict=True):
                assert np.array_equal(one, other if states else np.full_like(one, 7))


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"dtype": "float64"}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_packed_as_they_pack_themselves(kind, options, backward, inputs):
    layer, of = made(kind, **options)
    values = [np.array(one) for one in layer.parameters.values()]
    found = packs.pack(of, backward, inputs).run([*map(at, values)])
    for one, other in zip(found.copies(), values, strict=True):
        assert np.array_equal(one, other)
        assert one.shape == other.shape
    kept = layer._version.weights
    for one, other in zip(found.weights, kept, strict=True):
        for name in ("x", "bias", "h", "h_bias", "late", "projection"):
            assert np.array_equal(getattr(one.forward(), name), getattr(other.forward(), name))
        for name in ("h", "late", "projection"):
            assert np.array_equal(getattr(one.backward(), name), getattr(other.backward(), name))
        assert np.array_equal(one.input_panels(), other.input_panels())
    assert found.panels(packs.FORWARD) == [one.forward().address for one in found.weights]
    assert found.panels(packs.BACKWARD) == [one.backward().address for one in found.weights]
    assert found.panels(packs.INPUTS) == [at(one.input_panels()) for one in found.weights]


def test_long_calls_have_none():
    _, of = made("LSTM")
    assert not stacks.can_be(stacks.Stacked(of.cell, 1000, 1000, *(of.I, of.H, of.P, 2, 2),
                                            of.dtype, True, False))  # fmt: skip
