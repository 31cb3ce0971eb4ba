import pytest

from fastrnn.bench.cases import CELLS, SUITES, Case, Shape, plan

SHAPES = {
    "stream": "1,1,1,16 1,1,32,32 1,1,40,64 1,1,64,128 1,1,128,128 1,1,128,256 1,1,384,384 "
    "1,1,256,512",
    "sequence": "100,1,40,64 150,1,256,256 25,1,512,512 25,4,512,512 100,16,128,256 "
    "100,64,128,128 28,128,28,128 50,64,256,512",
    "train": "25,16,512,512 150,64,256,256 100,256,8,64 100,32,64,128 784,16,1,128 100,1,40,64",
    "ragged": "200,64,64,128 200,32,128,256",
}
PASSES = {
    "quick": ["forward", "train"],
    "stream": ["forward"],
    "sequence": ["forward"],
    "train": ["train"],
    "ragged": ["forward", "train"],
}


@pytest.mark.parametrize("suite", SHAPES)
def test_a_suite_has_its_shapes_for_every_cell(suite):
    found = {(case.cell, str(case.shape)) for case in plan(suite)}
    assert found == {(cell, shape) for cell in CELLS for shape in SHAPES[suite].split()}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_has_its_passes(suite):
    assert sorted({case.pass_ for case in plan(suite)}) == PASSES[suite]


def test_quick_is_three_shapes_of_each_cell():
    cases = plan("quick")
    assert len(cases) == 3 * 3 * 2
    assert len({case.shape for case in cases}) == 3


def test_cells_shapes_and_passes_can_be_chosen():
    shape = Shape(3, 2, 5, 7)
    assert plan("quick", ("gru",), (shape,), ("train",), "float64") == [
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
        plan("stream", shapes=(Shape(5, 1, 2, 2),))
    with pytest.raises(ValueError, match="no pass 'train'"):
        plan("stream", passes=("train",))
