"""Linear layers, and models of several: values, gradients, streams, files, errors."""

import pickle

import numpy as np
import pytest

import fastrnn
from cases import assert_close

ACTIVATIONS = [None, "tanh", "sigmoid", "relu"]


def truth(activation, a):
    return {
        None: lambda: a,
        "tanh": lambda: np.tanh(a),
        "sigmoid": lambda: 1 / (1 + np.exp(-a)),
        "relu": lambda: np.maximum(a, 0),
    }[activation]()


def differences(loss, value, step=1e-6):
    """Central differences of a loss by an array that it reads in place."""
    gradient = np.zeros_like(value)
    for at in np.ndindex(value.shape):
        kept = value[at]
        value[at] = kept + step
        above = loss()
        value[at] = kept - step
        gradient[at] = (above - loss()) / (2 * step)
        value[at] = kept
    return gradient


def test_a_model_has_length_indices_and_order():
    layers = fastrnn.GRU(3, 4, seed=0), fastrnn.LSTM(4, 5, seed=1), fastrnn.Linear(5, 2, seed=2)
    model = fastrnn.Sequential(*layers)
    assert len(model) == 3
    assert tuple(model) == layers
    assert [model[k] for k in (0, 1, -1, np.int64(2))] == [layers[k] for k in (0, 1, 2, 2)]
    part = model[:2]
    assert type(part) is fastrnn.Sequential
    assert part.modules == layers[:2]
    x = np.random.default_rng(0).standard_normal((6, 2, 3), dtype=np.float32)
    np.testing.assert_array_equal(model[2:](part(x)[0])[0], model(x)[0])
    with pytest.raises(IndexError, match="module 3 is not there: this Sequential has 3"):
        model[3]
    with pytest.raises(IndexError, match="modules 3:None:None are none"):
        model[3:]
    with pytest.raises(TypeError):
        model["0"]
    with pytest.raises(ValueError, match="module 1 takes 3 values, module 0 gives 2"):
        model[::-2]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_values_and_gradients(activation, bias):
    """float64; differences of step 1e-6 are good to 1e-9 of a loss of order 1."""
    layer = fastrnn.Linear(3, 4, bias, activation, dtype="float64", seed=0)
    random = np.random.default_rng(1)
    x, dy = random.standard_normal((5, 2, 3)), random.standard_normal((5, 2, 4))
    values = layer.state_dict()
    offset = values.get("bias", 0)

    def loss():
        return float((dy * truth(activation, x @ values["weight"].T + values.get("bias", 0))).sum())

    y, tape = layer.forward(x)
    np.testing.assert_allclose(y, truth(activation, x @ values["weight"].T + offset), atol=1e-14)
    np.testing.assert_array_equal(layer(x), y)
    gradients = layer.backward(tape, dy)
    assert gradients.state == ()
    np.testing.assert_allclose(gradients.x, differences(loss, x), atol=1e-7)
    assert list(gradients.parameters) == list(values)
    for name, value in values.items():
        wanted = differences(loss, value)
        np.testing.assert_allclose(gradients.parameters[name], wanted, atol=1e-7, err_msg=name)


def test_linear_sigmoid_at_its_ends():
    layer = fastrnn.Linear(1, 1, bias=False, activation="sigmoid")
    layer.update({"weight": np.ones((1, 1))})
    x = np.array([[-np.inf], [-200], [0], [200], [np.inf], [np.nan]], np.float32)
    np.testing.assert_array_equal(layer(x)[:, 0], np.float32([0, 0, 0.5, 1, 1, np.nan]))


def model(dtype="float32"):
    return fastrnn.Sequential(
        fastrnn.Linear(3, 5, activation="tanh", dtype=dtype, seed=0),
        fastrnn.LSTM(5, 7, num_layers=2, dtype=dtype, seed=1),
        fastrnn.GRU(7, 4, dtype=dtype, seed=2),
        fastrnn.Linear(4, 2, dtype=dtype, seed=3),
    )


@pytest.mark.smoke
def test_gradients_of_a_model_are_those_of_differences():
    """Through four layers of float64; differences of step 1e-6 as above."""
    one = model("float64")
    random = np.random.default_rng(1)
    x, dy = random.standard_normal((4, 2, 3)), random.standard_normal((4, 2, 2))
    dstates = ((random.standard_normal((2, 2, 7)), np.zeros((2, 2, 7))), np.zeros((1, 2, 4)))
    values = one.state_dict()

    def loss():
        one.load_state_dict(values)
        y, ((h, _), _) = one(x)
        return float((dy * y).sum() + (dstates[0][0] * h).sum())

    y, states, tape = one.forward(x)
    np.testing.assert_array_equal(one(x)[0], y)
    assert len(states) == 2
    gradients = one.backward(tape, dy, dstates)
    np.testing.assert_allclose(gradients.x, differences(loss, x), atol=1e-7)
    assert sorted(gradients.parameters) == sorted(values)
    for name in ("0.weight", "1.weight_hh_l1", "2.bias_hh_l0", "3.bias"):
        wanted = differences(loss, values[name])
        np.testing.assert_allclose(gradients.parameters[name], wanted, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "B"),
    [("float32", 1e-6, 1), ("float64", 1e-14, 3)],
)
def test_a_model_streams(dtype, tolerance, B):
    """NumPy's products round otherwise than the stream's: the last bits differ."""
    one = model(dtype)
    x = np.random.default_rng(1).standard_normal((9, B, 3)).astype(dtype)
    y, states = one(x)
    stream = one.stream(B)
    blocks = stream.block(x)
    assert_close(blocks, y, tolerance)
    (h, c), g = stream.state
    assert_close(h, states[0][0], tolerance)
    assert_close(c, states[0][1], tolerance)
    assert_close(g, states[1], tolerance)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(row).copy() for row in x]), blocks)
    last = stream.state
    stream.reset()
    stream.state = last
    np.testing.assert_array_equal(stream.state[0][1], c)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_streams_by_itself(activation):
    layer = fastrnn.Linear(3, 70, activation=activation, seed=0)
    x = np.random.default_rng(1).standard_normal((4, 2, 3), dtype=np.float32)
    stream = layer.stream(2)
    assert_close(stream.block(x), layer(x), 1e-6)
    assert stream.state == ()


def test_files_and_pickles(tmp_path):
    one = model()
    one.save(tmp_path / "model.safetensors")
    x = np.random.default_rng(1).standard_normal((4, 2, 3), dtype=np.float32)
    for same in (fastrnn.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(one))):
        assert repr(same) == repr(one)
        np.testing.assert_array_equal(same(x)[0], one(x)[0])


def test_update_changes_all_or_nothing():
    one = model()
    before = one.state_dict()
    with pytest.raises(ValueError, match=r"in module 3: bias has shape \(1,\), wanted \(2,\)"):
        one.update({"0.bias": np.ones(5), "3.bias": np.ones(1)})
    with pytest.raises(ValueError, match=r"'4\.bias' is no parameter"):
        one.update({"0.bias": np.ones(5), "4.bias": np.ones(1)})
    with pytest.raises(ValueError, match=r"state_dict misses 0.weight, 0.bias"):
        one.load_state_dict({})
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, before[name])
    one.update({"0.bias": np.ones(5), "3.bias": np.ones(2)})
    assert one.parameters["0.bias"].all()
    assert one.parameters["3.bias"].all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastrnn.Sequential(), ValueError, "modules are none"),
        (
            lambda: fastrnn.Sequential(7),
            TypeError,
            "module 0 is a int, wanted RNN, LSTM",
        ),
        (lambda: fastrnn.Sequential(fastrnn.LSTMCell(3, 4)), TypeError, "module 0 is a LSTMCell"),
        (
            lambda: fastrnn.Sequential(fastrnn.Linear(3, 4), fastrnn.GRU(5, 2)),
            ValueError,
            "module 1 takes 5 values, module 0 gives 4",
        ),
        (
            lambda: fastrnn.Sequential(fastrnn.Linear(3, 4), fastrnn.GRU(4, 2, dtype="float64")),
            ValueError,
            "module 1 has dtype float64, module 0 has float32",
        ),
        (
            lambda: fastrnn.Sequential(fastrnn.GRU(4, 4), fastrnn.GRU(4, 2, batch_first=True)),
            ValueError,
            "modules differ in batch_first",
        ),
        (lambda: fastrnn.Linear(3, 4, activation="gelu"), ValueError, "activation is 'gelu'"),
        (lambda: fastrnn.Linear(0, 4), ValueError, "in_features is 0, wanted at least 1"),
        (lambda: fastrnn.Linear(3, 4, dtype="bfloat16"), ValueError, "dtype is 'bfloat16'"),
        (lambda: model()(np.zeros((4, 3), np.float32), [None]), TypeError, "states is 1 of them"),
        (lambda: model()(np.zeros((4, 2), np.float32)), ValueError, r"wanted \(..., 3\)"),
        (lambda: model()(np.zeros((4, 3))), TypeError, "input has dtype float64"),
        (lambda: model().backward(None, np.zeros(3)), TypeError, "wanted the SequentialTape"),
        (lambda: model().stream().__class__(model(), 0), ValueError, "batch_size is 0"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_tapes_of_others():
    layer = fastrnn.Linear(3, 4)
    y, tape = layer.forward(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="tape comes from another layer"):
        fastrnn.Linear(3, 4).backward(tape, y)
    with pytest.raises(ValueError, match=r"dy has shape \(4, 2\), wanted that of y = \(2, 4\)"):
        layer.backward(tape, y.T)
    y, _, tape = model().forward(np.zeros((2, 1, 3), np.float32))
    with pytest.raises(ValueError, match="tape comes from another model"):
        model().backward(tape, y)


@pytest.mark.parametrize("name", ["2.weight", "-1.weight", "00.weight_ih_l0", "weight"])
def test_files_with_other_names_are_refused(tmp_path, name):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    model = fastrnn.Sequential(fastrnn.GRU(3, 5, seed=0), fastrnn.Linear(5, 2, seed=0))
    file = tmp_path / "model.safetensors"
    model.save(file)
    with safe_open(file, "np") as stored:
        metadata = stored.metadata()
    save_file(load_file(file) | {name: np.zeros(3, np.float32)}, file, metadata)
    with pytest.raises(ValueError, match=f"holds unknown {name}"):
        fastrnn.load(file)
