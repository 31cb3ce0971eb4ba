import pytest

from fastrnn.bench.cases import CELLS, SUITES, WRITTEN, Case, Shape, cases_of
from fastrnn.cells import FILES

SHAPES = {
    "stream": "1,1,1,16 1,1,32,32 1,1,40,64 1,1,64,128 1,1,128,128 1,1,128,256 1,1,384,384 "
    "1,1,256,512",
    "sequence": "100,1,40,64 150,1,256,256 25,1,512,512 25,4,512,512 100,16,128,256 "
    "100,64,128,128 28,128,28,128 50,64,256,512",
    "train": "25,16,512,512 150,64,256,256 100,256,8,64 100,32,64,128 784,16,1,128 100,1,40,64",
    "ragged": "200,64,64,128 200,32,128,256",
    "scaling": "100,2,32,64 1000,2,32,64 10000,2,32,64 100000,2,32,64 "
    "20,1,128,256 20,4,128,256 20,16,128,256 20,64,128,256 20,256,128,256 20,1024,128,256 "
    "20,4096,128,256 50,16,128,64 50,16,128,128 50,16,128,256 50,16,128,512 50,16,128,1024 "
    "100,16,128,256",
}
PASSES = {
    "quick": ["forward", "train"],
    "stream": ["forward"],
    "sequence": ["forward"],
    "train": ["train"],
    "ragged": ["forward", "train"],
    "deepbench": ["forward", "train"],
    "scaling": ["forward", "train"],
    "cells": ["forward", "train"],
}


@pytest.mark.parametrize("suite", SHAPES)
def test_a_suite_has_its_shapes_for_every_cell(suite):
    found = {(case.cell, str(case.shape)) for case in cases_of(suite)}
    assert found == {(cell, shape) for cell in CELLS for shape in SHAPES[suite].split()}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_has_its_passes(suite):
    assert sorted({case.pass_ for case in cases_of(suite)}) == PASSES[suite]


def test_cells_are_those_of_fastrnn_and_two_that_are_written_like_built_in_ones():
    cases = cases_of("cells")
    named = [case for case in cases if case.suite == "cells"]
    assert {case.cell for case in named} == {*FILES}
    assert len(named) == 2 * (len(FILES) + 2)
    assert {case.cell for case in named if case.shape.T > 1000} == {"MinGRU", "MinGRULog"}
    for cell in WRITTEN:
        found = [case for case in cases if case.cell == cell]
        assert [(case.suite, case.shape, case.pass_) for case in found] == [
            (suite, shape, pass_)
            for suite in ("sequence", "train", "stream")
            for shape in SUITES[suite].shapes
            for pass_ in SUITES[suite].passes
        ]
    trained = cases_of("cells", tuple(WRITTEN), passes=("train",))
    assert {case.suite for case in trained} == {"train"}
    assert {case.cell for case in cases_of("cells", ("MinGRU",))} == {"MinGRU"}
    shape = Shape(3, 2, 5, 7)
    (case, _) = cases_of("cells", ("MinGRU",), (shape,))
    assert case == Case("cells", "MinGRU", shape, "forward", "float32")


def test_flops_count_an_h_part_where_there_is_one():
    case = Case("cells", "MinGRU", Shape(5, 3, 2, 7), "forward", "float32")
    assert case.flops == 2 * 5 * 3 * 2 * 7 * 2


def test_deepbench_has_a_list_for_each_cell():
    hidden = {cell: [c.shape.H for c in cases_of("deepbench", (cell,))[::2]] for cell in CELLS}
    assert hidden == {
        "rnn": [1760, 2048, 2560],
        "lstm": [256, 512, 1024, 1536, 2048, 4096],
        "gru": [512, 1024, 1536, 2048, 2560, 2816],
    }


def test_scaling_goes_through_the_threads_up_to_the_runs():
    shape = Shape(100, 16, 128, 256)
    found = [c.threads for c in cases_of("scaling", ("rnn",), threads=6) if c.shape == shape]
    assert found == [1, 1, 2, 2, 4, 4, None, None]
    assert str(cases_of("scaling", ("rnn",), threads=2)[-3]) == "RNN 100,16,128,256 train on 1"
    assert all(case.threads is None for case in cases_of("scaling", shapes=(shape,), threads=6))


def test_int8_is_for_streams():
    assert {case.arrays for case in cases_of("stream", dtype="int8")} == {"float32"}
    assert {case.compute for case in cases_of("stream", dtype="int8")} == {"float32"}
    for suite in ("quick", "sequence", "train"):
        with pytest.raises(ValueError, match=f"int8 .* suite {suite} has no streams"):
            cases_of(suite, dtype="int8")


def test_bfloat16_is_for_inference():
    assert {case.pass_ for case in cases_of("quick", dtype="bfloat16")} == {"forward"}
    for arguments in ({"suite": "train"}, {"suite": "quick", "passes": ("train",)}):
        with pytest.raises(ValueError, match="bfloat16 is for inference"):
            cases_of(**arguments, dtype="bfloat16")
    case = Case("quick", "gru", shape := Shape(3, 2, 5, 7), "forward", "bfloat16")
    assert case.arrays == "float32"
    assert Case("quick", "gru", shape, "forward", "float64").arrays == "float64"


def test_quick_is_three_shapes_of_each_cell():
    cases = cases_of("quick")
    assert len(cases) == 3 * 3 * 2
    assert len({case.shape for case in cases}) == 3


def test_cells_shapes_and_passes_can_be_chosen():
    shape = Shape(3, 2, 5, 7)
    assert cases_of("quick", ("gru",), (shape,), ("train",), "float64") == [
        Case("quick", "gru", shape, "train", "float64")
    ]


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_flops_are_two_for_every_weight_step_and_sequence(cell, gates):
    case = Case("sequence", cell, Shape(5, 3, 2, 7), "forward", "float32")
    assert case.flops == 2 * 5 * 3 * gates * 7 * (2 + 7)
    trained = Case("train", cell, Shape(5, 3, 2, 7), "train", "float32")
    assert trained.flops == 3 * case.flops


def test_flops_of_a_ragged_batch_are_those_of_the_steps_needed():
    case = Case("ragged", "rnn", Shape(200, 64, 3, 5), "forward", "float32")
    assert case.flops == 2 * sum(case.lengths) * 5 * (3 + 5)
    assert case.flops < Case("sequence", "rnn", case.shape, "forward", "float32").flops


def test_lengths_are_uniform_and_the_same_every_time():
    lengths = Case("ragged", "gru", Shape(200, 4000, 1, 1), "forward", "float32").lengths
    assert lengths == Case("ragged", "lstm", Shape(200, 4000, 1, 1), "train", "float64").lengths
    assert (min(lengths), max(lengths)) == (1, 200)
    # the mean of 4000 draws has a standard error of 0.9
    assert abs(sum(lengths) / 4000 - 100.5) < 5
    assert Case("sequence", "gru", Shape(200, 4, 1, 1), "forward", "float32").lengths is None


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "", "a,b,c,d", "1,2,3,4.5", "1,2,,4"])
def test_a_shape_of_anything_but_four_integers_is_refused(text):
    with pytest.raises(ValueError, match="four integers") as error:
        Shape.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["0,1,1,1", "1,1,1,-4"])
def test_a_shape_below_one_is_refused(text):
    with pytest.raises(ValueError, match="positive"):
        Shape.parse(text)


def test_a_shape_reads_what_it_writes():
    assert Shape.parse("100,16,128,256") == Shape(T=100, B=16, I=128, H=256)
    assert str(Shape(100, 16, 128, 256)) == "100,16,128,256"


def test_stream_takes_single_steps_only():
    with pytest.raises(ValueError, match="T=1, got 5,1,2,2"):
        cases_of("stream", shapes=(Shape(5, 1, 2, 2),))
    with pytest.raises(ValueError, match="no pass 'train'"):
        cases_of("stream", passes=("train",))
