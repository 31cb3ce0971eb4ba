"""Streams whose weights are stored in 16 or 8 bits: what they compute, and how far off that is."""

import numpy as np
import pytest

import fastrnn
from cases import assert_close, make


def as_bfloat16(values):
    """Rounded to 8 bits of mantissa, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32)


def as_int8(values):
    """Each row in steps of a 127th of its largest."""
    steps = np.abs(values).max(axis=1, keepdims=True) / 127
    return (np.rint(values / steps) * steps).astype(np.float32)


def rounded(layer, rounding):
    """A copy with its weights, not its biases, rounded."""
    other = type(layer)(**layer.config())
    other.load_state_dict(
        {n: rounding(v) if v.ndim == 2 else v for n, v in layer.parameters.items()}
    )
    return other


#: Odd sums of cells of each form: together (the LSTM's are an RNN's, four times), apart, and
#: with late gates. Each takes seconds to compile.
GRID = [(cell, 7, 33, {}) for cell in ("RNN-tanh", "GRU", "GRU-reset-before")]
#: Sums of more than one chain, of stacks: of a cell with late gates, and of one without.
DEEP, LATE = ((cell, 131, 40, {"num_layers": 2}) for cell in ("GRU", "GRU-reset-before"))


@pytest.mark.parametrize(("cell", "I", "H", "arguments"), [*GRID, LATE])
def test_bf16_is_a_layer_of_rounded_weights(cell, I, H, arguments):
    """What is stored is read back exactly, so the bits are those of a layer of such weights."""
    layer = make(cell, I, H, **arguments)
    x = np.random.default_rng(0).standard_normal((20, 1, I), dtype=np.float32)
    wanted, _ = rounded(layer, as_bfloat16)(x)
    np.testing.assert_array_equal(layer.stream(weights="bf16").block(x), wanted)


@pytest.mark.parametrize(("cell", "I", "H", "arguments"), [*GRID, DEEP])
def test_int8_is_a_layer_of_rounded_weights(cell, I, H, arguments):
    """But for the last bits: the scale comes after the sum."""
    layer = make(cell, I, H, **arguments)
    x = np.random.default_rng(0).standard_normal((20, 1, I), dtype=np.float32)
    wanted, _ = rounded(layer, as_int8)(x)
    stream = layer.stream(weights="int8")
    blocks = stream.block(x)
    assert_close(blocks, wanted, 1e-5)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(row).copy() for row in x]), blocks)


def test_projections_and_linear_layers_too():
    model = fastrnn.Sequential(
        fastrnn.LSTM(5, 40, proj_size=9, seed=0), fastrnn.Linear(9, 70, activation="tanh", seed=1)
    )
    x = np.random.default_rng(0).standard_normal((20, 2, 5), dtype=np.float32)
    for storage, rounding in (("bf16", as_bfloat16), ("int8", as_int8)):
        other = fastrnn.Sequential(
            fastrnn.LSTM(5, 40, proj_size=9), fastrnn.Linear(9, 70, activation="tanh")
        )
        other.load_state_dict(
            {n: rounding(v) if v.ndim == 2 else v for n, v in model.parameters.items()}
        )
        assert_close(model.stream(2, weights=storage).block(x), other(x)[0], 1e-5)


#: Root mean square errors as docs/streams.md states them, T = 1000, I = H = 128, standard normal
#: inputs: weights of a layer just drawn. Measured, rounded up.
ERRORS = {
    ("LSTM", "bf16"): 3e-4, ("LSTM", "int8"): 7e-4,
    ("GRU", "bf16"): 6e-4, ("GRU", "int8"): 1.4e-3,
    ("RNN-tanh", "bf16"): 1.2e-3, ("RNN-tanh", "int8"): 2.6e-3,
}  # fmt: skip


@pytest.mark.parametrize(("cell", "storage"), ERRORS)
def test_the_error_is_as_stated(cell, storage):
    layer = make(cell, 128, 128)
    x = np.random.default_rng(0).standard_normal((1000, 1, 128), dtype=np.float32)
    wanted, _ = layer(x)
    error = layer.stream(weights=storage).block(x) - wanted
    rms = float(np.sqrt(np.mean(error**2)))
    assert ERRORS[cell, storage] / 2 < rms < ERRORS[cell, storage]


def test_rows_of_zeros_and_of_what_is_not_finite():
    layer = make("LSTM", 3, 20)
    values = layer.state_dict()
    values["weight_ih_l0"][:20] = 0
    layer.load_state_dict(values)
    x = np.ones((4, 1, 3), np.float32)
    assert_close(layer.stream(weights="int8").block(x), rounded_rows(layer)(x)[0], 1e-5)
    values["weight_ih_l0"][0, 0] = np.nan
    layer.load_state_dict(values)
    assert np.isnan(layer.stream(weights="int8").block(x)[:, 0, 0]).all()


def rounded_rows(layer):
    with np.errstate(invalid="ignore"):
        return rounded(layer, lambda v: np.nan_to_num(as_int8(v)))


def test_a_bfloat16_layer_streams_with_bf16_weights():
    layer = make("GRU", 5, 20, dtype="bfloat16")
    full = make("GRU", 5, 20)
    x = np.random.default_rng(0).standard_normal((20, 1, 5), dtype=np.float32)
    stream = layer.stream()
    assert stream.weights == "bf16"
    np.testing.assert_array_equal(stream.block(x), full.stream(weights="bf16").block(x))
    np.testing.assert_array_equal(layer.stream(weights="float32").block(x), full(x)[0])


@pytest.mark.parametrize(
    ("dtype", "storage", "error", "message"),
    [
        (
            "float32",
            "int4",
            ValueError,
            "weights is 'int4', wanted one of 'float32', 'bf16', 'int8'",
        ),
        ("float32", "float64", ValueError, "weights is 'float64', wanted one of"),
        ("float64", "bf16", ValueError, "weights is 'bf16', wanted one of 'float64'"),
        ("float32", 8, TypeError, "weights is 8, wanted one of"),
    ],
)
def test_bad_storage(dtype, storage, error, message):
    with pytest.raises(error, match=message):
        make("LSTM", 3, 4, dtype=dtype).stream(weights=storage)
