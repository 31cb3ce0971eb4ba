"""What the door says of arrays of another type: with it stands what to write, and that works."""

import re

import numpy as np
import pytest

import fastrnn

VALUES = np.arange(12).reshape(4, 1, 3)
CALLS = {
    "layer": fastrnn.GRU(3, 4, seed=0),
    "cell": lambda x: fastrnn.GRUCell(3, 4, seed=0)(x[0]),
    "linear": fastrnn.Linear(3, 4, seed=0),
    "sequential": fastrnn.Sequential(fastrnn.GRU(3, 4, seed=0), fastrnn.Linear(4, 2, seed=0)),
    "step": lambda x: fastrnn.GRU(3, 4, seed=0).stream().step(x[0]),
    "block": lambda x: fastrnn.GRU(3, 4, seed=0).stream().block(x),
}


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        (VALUES.astype(np.float64), "x.astype(np.float32)"),
        (VALUES.astype(np.float16), "x.astype(np.float32)"),
        (VALUES.astype(">f4"), "x.astype(np.float32)"),
        (VALUES, "x.astype(np.float32)"),
        (VALUES > 3, "x.astype(np.float32)"),
        (VALUES.tolist(), "np.asarray(x, np.float32)"),
        ((VALUES / 2).tolist(), "np.asarray(x, np.float32)"),
    ],
    ids=["float64", "float16", "big-endian", "integers", "booleans", "list", "floats"],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_what_to_write_stands_in_the_error_and_works(call, x, wanted):
    with pytest.raises(TypeError, match=r"input has dtype .*, .* takes float32: write ") as error:
        call(x)
    written = re.search(r"write (.*?\))(, or|$)", str(error.value))[1]
    assert written == wanted
    call(eval(written, {"np": np, "x": x}))


def test_the_type_of_the_model_may_change_instead():
    x = VALUES.astype(np.float64)
    with pytest.raises(TypeError, match=r', or make the model with dtype="float64"$'):
        fastrnn.LSTM(3, 4)(x)
    fastrnn.LSTM(3, 4, dtype="float64")(x)
    with pytest.raises(TypeError, match=r"takes float64: write x\.astype\(np\.float64\)$"):
        fastrnn.LSTM(3, 4, dtype="float64")(x.astype(np.float32))


def test_of_other_arguments_the_name_is_told():
    layer = fastrnn.GRU(3, 4, seed=0)
    x = VALUES.astype(np.float32)
    y, _, tape = layer.forward(x)
    with pytest.raises(TypeError, match=r"dy has .*: write dy\.astype\(np\.float32\), or"):
        layer.backward(tape, y.astype(np.float64))
    with pytest.raises(TypeError, match=r"state has .*: write np\.asarray\(state, np\.float32\)$"):
        layer(x, [[[1, 2, 3, 4]]])


@pytest.mark.parametrize("x", ["text", np.zeros((4, 1, 3), np.complex64)])
def test_what_is_no_real_number_gets_no_advice(x):
    with pytest.raises(TypeError, match=r"input has dtype .*, this GRU takes float32$"):
        fastrnn.GRU(3, 4)(x)


def test_an_output_of_another_type_is_not_converted():
    with pytest.raises(TypeError, match=r"out has dtype float64, this stream takes float32$"):
        fastrnn.GRU(3, 4).stream().step(np.zeros(3, np.float32), np.zeros(4))
