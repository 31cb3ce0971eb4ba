"""Layers of defined cells: the kernels beside Keras's own operations, and beside Keras's GRU.

`test_backends.py` runs this file once for each backend.
"""

import contextlib
import warnings
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers

import fastrnn
import fastrnn.keras
from fastrnn.cells import MGU, MinGRU, PeepholeLSTM
from fastrnn.equations import sigmoid, tanh
from fastrnn.keras import defined
from fastrnn.keras import layers as loops
from keras_tools import TRAINS, assert_close, gradients, only_kernels, outputs

B, T, I, H = 4, 5, 3, 7
#: Sums of some ten products in another order.
TOLERANCE = 2e-6
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0] * 5], bool)
EVERYTHING = {"return_sequences": True, "return_state": True}
OPTIONS = {
    "last output": ({}, None),
    "masked": (EVERYTHING, MASK),
    "masked, backwards, zeros": (
        EVERYTHING | {"go_backwards": True, "zero_output_for_mask": True}, MASK,
    ),
    "no bias": (EVERYTHING | {"use_bias": False}, None),
}  # fmt: skip


@fastrnn.cell(gates="z r h")
def KerasGRU(a, s):
    """Keras's GRU, its gates in Keras's order."""
    z = sigmoid(a.z)
    r = sigmoid(a.r)
    return z * s.h + (1 - z) * tanh(a.h.x + r * a.h.h)


def made(cell, **options):
    """A layer with weights that are not symmetric, and an input."""
    layer = cell.keras(H, **options)
    layer.build((B, T, I))
    rng = np.random.default_rng(3)
    layer.set_weights([rng.uniform(-0.6, 0.6, one.shape) for one in layer.get_weights()])
    return layer, rng.standard_normal((B, T, I)).astype("float32")


@contextlib.contextmanager
def by_operations():
    with (
        mock.patch.object(loops, "sequence", return_value=None),
        mock.patch.object(defined, "step", return_value=None),
    ):
        yield


def alike(layer, *arguments, **how):
    for function in (outputs, gradients) if TRAINS else (outputs,):
        with by_operations():
            wanted = function(layer, *arguments, **how)
        with only_kernels():
            found = function(layer, *arguments, **how)
        assert_close(found, wanted, 10 * TOLERANCE)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell", [PeepholeLSTM, MGU, MinGRU], ids=lambda cell: cell.kind)
def test_kernels_beside_operations(cell, option):
    options, mask = OPTIONS[option]
    layer, x = made(cell, **options)
    rng = np.random.default_rng(4)
    states = [rng.uniform(-1, 1, (B, H)).astype("float32") for _ in layer.state_size]
    alike(layer, x, mask, states)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_a_gru_by_hand_is_the_gru_of_keras(mask):
    layer, x = made(KerasGRU, **EVERYTHING)
    own = layers.GRU(H, **EVERYTHING)
    own.build((B, T, I))
    own.set_weights(layer.get_weights())
    for function in (outputs, gradients) if TRAINS else (outputs,):
        wanted = function(own, x, mask)
        with only_kernels():
            assert_close(function(layer, x, mask), wanted, 10 * TOLERANCE)


def test_bits_are_those_of_the_layer():
    layer, x = made(PeepholeLSTM, **EVERYTHING)
    kernel, recurrent, bias, *units = layer.get_weights()
    own = PeepholeLSTM(I, H)
    names = "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "p_i_l0", "p_f_l0", "p_o_l0"
    values = dict(zip(names, (kernel.T, recurrent.T, bias, *units), strict=True))
    own.load_state_dict(values | {"bias_hh_l0": np.zeros_like(bias)})
    wanted, (h, c) = own(np.ascontiguousarray(x.swapaxes(0, 1)))
    y, *final = outputs(layer, x)
    np.testing.assert_array_equal(y, wanted.swapaxes(0, 1))
    np.testing.assert_array_equal(final, [h[0], c[0]])


def test_steps_are_those_of_the_layer():
    layer, x = made(PeepholeLSTM, **EVERYTHING)
    y, *final = outputs(layer, x)
    cell = PeepholeLSTM.Cell.keras(H)
    cell.build((B, I))
    cell.set_weights(layer.get_weights())
    states = cell.get_initial_state(B)
    for t in range(T):
        h, states = cell(keras.ops.convert_to_tensor(x[:, t]), states)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(h), y[:, t])
    loop = layers.RNN(PeepholeLSTM.Cell.keras(H), **EVERYTHING)
    loop.build((B, T, I))
    loop.set_weights(layer.get_weights())
    assert_close(outputs(loop, x), [y, *final], 10 * TOLERANCE)


def test_dropout_draws_one_mask_for_all_steps():
    layer, x = made(MGU, dropout=0.4, seed=5, return_sequences=True)
    again, _ = made(MGU, dropout=0.4, seed=5, return_sequences=True)
    found = outputs(layer, x, training=True)
    with by_operations():
        assert_close(outputs(again, x, training=True), found, 10 * TOLERANCE)
    assert np.abs(found[0] - outputs(layer, x)[0]).max() > 0.01


def test_state_is_carried_from_call_to_call():
    layer, x = made(PeepholeLSTM, stateful=True, return_sequences=True)
    whole, _ = made(PeepholeLSTM, return_sequences=True)
    halves = outputs(layer, x) + outputs(layer, x)
    wanted = outputs(whole, np.concatenate([x, x], 1))[0]
    np.testing.assert_array_equal(np.concatenate(halves, 1), wanted)


def test_half_precision_runs_by_operations():
    layer, x = made(MGU, dtype="mixed_float16")
    with pytest.warns(UserWarning, match="half precision"):
        found = outputs(layer, x)[0]
    np.testing.assert_allclose(found, outputs(made(MGU)[0], x)[0], atol=0.01)


def test_configurations():
    layer, _ = made(
        PeepholeLSTM, **EVERYTHING, go_backwards=True, dropout=0.2, seed=3, use_bias=False,
        per_unit_constraint="non_neg", kernel_regularizer="l2", recurrent_initializer="zeros",
    )  # fmt: skip
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    with pytest.raises(ValueError, match="other equations"):
        type(layer).from_config({**layer.get_config(), "equations": "0"})
    with pytest.raises(ValueError, match="units is 0"):
        PeepholeLSTM.keras(0)
    assert PeepholeLSTM.keras(3, per_unit_regularizer="l2").cell.per_unit_regularizer is not None


@pytest.mark.skipif(not TRAINS, reason="this backend has no gradients")
def test_models_train_and_are_saved(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((T, I)),
            layers.Masking(),
            layers.Bidirectional(PeepholeLSTM.keras(H, return_sequences=True)),
            MGU.keras(H, initial_state="learned"),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, T, I)).astype("float32")
    y = x.sum((1, 2))[:, None]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*by Keras's own step")
        losses = model.fit(x, y, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-2]) is type(model.layers[-2])
    starts = [layer.layers[-2]._starts[0] for layer in (loaded, model)]
    found, wanted = (np.asarray(keras.ops.convert_to_numpy(one)) for one in starts)
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0, batch_size=32), model.predict(x, verbose=0, batch_size=32)
    )


def test_cells_that_are_defined_anew_are_registered():
    @fastrnn.cell(gates="a")
    def Anew(a, s):
        return tanh(a.a)

    assert keras.saving.get_registered_object("fastrnn>Anew") is type(Anew.keras(2))
    assert fastrnn.keras.accelerate(keras.Sequential([Anew.keras(2)])).swapped == ()
