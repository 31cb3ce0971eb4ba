"""Linear layers on the GPU, on Numba's simulator: values, gradients, errors."""

import numpy as np
import pytest
from numba import config

import fastrnn
from cases import assert_close
from fastrnn_kernels.cpu import device as cpu

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

FUNCTIONS = {
    None: lambda a: a,
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
}


def layer_of(activation=None, bias=True):
    return fastrnn.Linear(3, 2, bias, activation, device="cuda", dtype="float64", seed=2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_values_and_gradients(activation, bias):
    layer, rng = layer_of(activation, bias), np.random.default_rng(0)
    x, dy = rng.standard_normal((4, 5, 3)), rng.standard_normal((4, 5, 2))

    def loss(x, values):
        a = x @ values["weight"].T + values.get("bias", 0)
        return float((FUNCTIONS[activation](a) * dy).sum())

    y, tape = layer.forward(x)
    wanted = FUNCTIONS[activation](
        x @ layer.parameters["weight"].T + layer.parameters.get("bias", 0)
    )
    assert_close(y, wanted, 1e-12, "y")
    np.testing.assert_array_equal(layer(x), y)
    gradients = layer.backward(tape, dy)
    places = {"x": x, **layer.state_dict()}
    for name, array in places.items():
        found = gradients.x if name == "x" else gradients.parameters[name]
        for at in np.ndindex(*array.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = {key: value.copy() for key, value in places.items()}
                moved[name][at] += step
                sides.append(loss(moved.pop("x"), moved))
            # Central differences of steps of 1e-6 are good to about 1e-9 here.
            assert abs(found[at] - (sides[0] - sides[1]) / 2e-6) < 1e-7, (name, at)


def test_an_input_that_changes_later_does_not_change_the_tape():
    layer, x = layer_of(), np.ones((4, 3))
    _, tape = layer.forward(x)
    x[:] = 7
    np.testing.assert_array_equal(
        layer.backward(tape, np.ones((4, 2))).parameters["weight"], np.full((2, 3), 4.0)
    )


def test_new_parameters_are_taken_up():
    layer, x = layer_of(), np.ones((4, 3))
    layer(x)
    layer.update({"weight": np.zeros((2, 3)), "bias": np.array([1.0, 2.0])})
    np.testing.assert_array_equal(layer(x), np.tile([1.0, 2.0], (4, 1)))


def test_a_tape_of_another_device_is_refused(monkeypatch):
    layer = layer_of()
    _, tape = layer.forward(np.ones((4, 3)))
    monkeypatch.setattr(layer, "_kernels", cpu)
    with pytest.raises(ValueError, match="tape was made before this layer moved"):
        layer.backward(tape, np.ones((4, 2)))


def test_a_model_of_layers_and_a_linear_one():
    lstm = fastrnn.LSTM(3, 3, device="cuda", dtype="float64", seed=1)
    model = fastrnn.Sequential(lstm, layer_of("tanh"))
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    y, _, tape = model.forward(x)
    h, _, own = lstm.forward(x)
    last, behind = model.modules[1].forward(h)
    np.testing.assert_array_equal(y, last)
    gradients = model.backward(tape, np.ones_like(y))
    wanted = lstm.backward(own, model.modules[1].backward(behind, np.ones_like(y)).x)
    np.testing.assert_array_equal(gradients.x, wanted.x)


def test_a_stream_wants_one_device(monkeypatch):
    model = fastrnn.Sequential(layer_of(), fastrnn.Linear(2, 1, dtype="float64", device="cuda"))
    monkeypatch.setitem(model.modules[1].__dict__, "device", "cpu")
    with pytest.raises(ValueError, match=r"modules are not on one .*: 0 on 'cuda', 1 on 'cpu'"):
        model.stream()
