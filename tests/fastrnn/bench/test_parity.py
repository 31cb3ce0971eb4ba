import numpy as np
import pytest

from fastrnn.bench.cases import Case, Shape, cases_of
from fastrnn.bench.data import sample, weights
from fastrnn.bench.parity import PEER_TOLERANCE, TOLERANCE, difference, truth

CASE = Case("train", "lstm", Shape(5, 3, 2, 7), "train", "float32")


def answer(dtype="float32"):
    return {name: value.astype(dtype) for name, value in truth(CASE).items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_truth_itself_is_accepted(dtype):
    assert difference(answer(dtype), truth(CASE), dtype) is None


def test_training_is_compared_in_everything_there_is():
    parameters = {f"d{name}" for name in weights(CASE)}
    assert truth(CASE).keys() == {"y", "h_n", "c_n", "dx", "dh0", "dc0", *parameters}


def test_a_step_is_compared_in_its_state():
    (case,) = cases_of("stream", ("gru",), (Shape(1, 2, 3, 4),))
    assert truth(case).keys() == {"h_n"}
    assert truth(case)["h_n"].shape == (2, 4)


@pytest.mark.smoke
@pytest.mark.parametrize("name", truth(CASE))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_wrong_element_anywhere_is_found(name, dtype):
    wrong = answer(dtype)
    scale = np.abs(truth(CASE)[name]).max()
    wrong[name][(0,) * wrong[name].ndim] += 3 * TOLERANCE[dtype] * scale
    assert difference(wrong, truth(CASE), dtype).startswith(f"{name} differs")


def test_a_peer_may_be_coarser_but_not_compute_in_less():
    coarse = {name: value * np.float32(1 + 1e-4) for name, value in answer().items()}
    assert difference(coarse, truth(CASE), "float32") is not None
    assert difference(coarse, truth(CASE), "float32", PEER_TOLERANCE) is None
    less = {
        name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32)  # bfloat16's digits
        for name, value in answer().items()
    }
    assert difference(less, truth(CASE), "float32", PEER_TOLERANCE) is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_found(value):
    wrong = answer()
    wrong["dx"][1, 2, 1] = value
    assert difference(wrong, truth(CASE), "float32").startswith("dx differs")


def test_what_is_missing_or_too_much_is_found():
    wrong = answer()
    del wrong["dc0"]
    assert "dc0" in difference(wrong, truth(CASE), "float32")
    more = answer() | {"dweight_xy": np.zeros(1)}
    assert "dweight_xy" in difference(more, truth(CASE), "float32")


def test_another_shape_or_dtype_is_found():
    wrong = answer()
    wrong["y"] = wrong["y"][:, :1]  # would broadcast
    assert "(5, 1, 7), wanted (5, 3, 7)" in difference(wrong, truth(CASE), "float32")
    assert "float64, wanted float32" in difference(answer("float64"), truth(CASE), "float32")


def test_inputs_differ_from_one_another_and_not_from_run_to_run():
    first, second = sample(CASE, 0), sample(CASE, 1)
    assert not np.array_equal(first.x, second.x)
    assert not np.array_equal(first.state[0], second.state[0])
    np.testing.assert_array_equal(first.dy, sample(CASE, 0).dy)
    assert first.x.dtype == np.float32
    assert weights(CASE)["weight_hh"].shape == (28, 7)
