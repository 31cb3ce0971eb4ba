"""Whole passes for other instruction sets than this host's, in this process, where it has them.

What fuses multiply and add has the host's results bit for bit, whatever the width of its vectors:
sums are chains in one order, and the functions of cells round alike in every lane.
"""

import json

import numpy as np
import pytest

import digests
import fastrnn
from cases import TOLERANCE, as_state, assert_close, expected, make, problem, run
from fastrnn_kernels.cpu.isa import host
from fastrnn_kernels.cpu.isa.instruction_set import AVX2, AVX512, AVX512_BF16, SSE2


def runs(*isas):
    """Instruction sets as parameters, those that this host lacks skipped by name."""
    return pytest.mark.parametrize(
        "other",
        [
            pytest.param(
                isa,
                id=isa.name,
                marks=pytest.mark.skipif(
                    not host.runs_here(isa),
                    reason=f"this host lacks {', '.join(sorted(isa.needs - host.FEATURES))}",
                ),
            )
            for isa in isas
            if isa.name != host.HOST.name
        ],
    )


def both(isa, calculate):
    """What is computed by kernels for the host, and by those for another instruction set."""
    wanted = calculate()
    with host.compiling_for(isa):
        return wanted, calculate()


#: Of each form that loops have, one: whole sums, sums apart, late gates.
FORMS = [("LSTM", "float32"), ("GRU", "float32"), ("GRU-reset-before", "float32")]


@runs(AVX2)
@pytest.mark.parametrize(("cell", "dtype"), FORMS)
def test_odd_sizes_agree(other, cell, dtype):
    """Units and inputs that fill no vector, ragged, in both directions; and one row of one step."""

    def calculate():
        found = []
        for T, B, I, H, lengths in ((5, 7, 3, 37, [5, 1, 0, 4, 5, 3, 2]), (1, 1, 1, 1, None)):
            layer = make(cell, I, H, bidirectional=True, dtype=dtype)
            p = problem(layer, T, B)
            found += run(layer, p, lengths=lengths).arrays().values()
        return found

    wanted, found = both(other, calculate)
    for one, its in zip(wanted, found, strict=True):
        if other.fused == host.HOST.fused:
            np.testing.assert_array_equal(its, one)
        else:  # rounding differs; sums here have some hundred terms of order 1
            np.testing.assert_allclose(its, one, atol=2e-5)


@runs(SSE2)
@pytest.mark.parametrize(("cell", "dtype"), [*FORMS, ("RNN-tanh", "float64")])
def test_portable_results_are_what_they_were(other, cell, dtype):
    """Of odd sizes too, ragged and reset: known bits, in place of what the host computes."""
    kept = json.loads(digests.FILE.read_text())["plain"]
    with host.compiling_for(other):
        for name, value in digests.passes(cell, dtype):
            assert kept[f"{cell} {dtype} {name}"] == value, name
        one = make(cell, 1, 1, bidirectional=True, dtype=dtype)
        p = problem(one, 1, 1)
        assert_close(run(one, p).y, expected(cell, one, p)[0], TOLERANCE[dtype])


@runs(SSE2, AVX2, AVX512)
def test_bfloat16_agrees(other):
    """Pairs that one instruction multiplies, or that are taken apart."""

    def calculate():
        layer = make("RNN-tanh", 9, 37, dtype="bfloat16")
        return layer(problem(layer, 5, 7).x)[0]

    with host.compiling_for(AVX512_BF16 if host.HOST.tiles else host.HOST):
        wanted, found = both(other, calculate)
    np.testing.assert_allclose(found, wanted, atol=0 if other.fused == host.HOST.fused else 1e-6)


@runs(AVX2)
@pytest.mark.parametrize("storage", [None, "bf16", "int8"])
def test_streams_agree(other, storage):
    def calculate():
        model = fastrnn.Sequential(make("GRU", 9, 21), fastrnn.Linear(21, 3, seed=0))
        return model.stream(weights=storage).block(np.ones((4, 9), np.float32))

    wanted, found = both(other, calculate)
    np.testing.assert_allclose(found, wanted, atol=0 if other.fused == host.HOST.fused else 1e-6)


@runs(AVX2)
def test_what_is_made_for_one_is_not_taken_for_another(other):
    """A layer's packed weights, plans and kernels are kept apart."""
    layer = make("RNN-tanh", 5, 33)
    p = problem(layer, 4, 3)
    before, _ = layer(p.x, as_state(p.state))
    ours = layer.stream()
    with host.compiling_for(other):
        layer(p.x, as_state(p.state))
        stream = layer.stream()
    after, _ = layer(p.x, as_state(p.state))
    np.testing.assert_array_equal(after, before)
    # A stream stays with what it was made for, where else it is used.
    for x in p.x[:, 0]:
        np.testing.assert_allclose(stream.step(x), ours.step(x), atol=1e-6)
    np.testing.assert_allclose(stream.state, ours.state, atol=1e-6)
