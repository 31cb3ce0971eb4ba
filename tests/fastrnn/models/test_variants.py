"""RNN, LSTM and GRU with activations of choice and peepholes, as models of others have them."""

import pickle

import numpy as np
import pytest

import cases
import fastrnn
import gradients
import reference
from cases import TOLERANCE, as_state, assert_close, expected, problem, states
from fastrnn_kernels.equations import variants
from fastrnn_kernels.equations.activations import activation

FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": reference.sigmoid,
    "relu": lambda a: np.maximum(a, 0),
}


def function(chosen):
    if isinstance(chosen, str):
        return FUNCTIONS[chosen]
    name, alpha, beta = chosen
    assert name == "tanh"
    return lambda a: alpha * np.tanh(beta * a)


def rnn_step(w, x, state, activation):
    """LeCun's tanh, say: h' = f(W x + b + R h + b)."""
    (h,) = state
    a = x @ w["weight_ih"] + w["bias_ih"] + h @ w["weight_hh"] + w["bias_hh"]
    return (function(activation)(a),), {}


def lstm_step(w, x, state, peepholes):
    """As madmom's, whose gates i and f see c, and o sees c'."""
    h, c = state
    assert peepholes
    a = x @ w["weight_ih"] + w["bias_ih"] + h @ w["weight_hh"] + w["bias_hh"]
    i, f, g, o = np.split(a, 4, axis=-1)
    c_new = reference.sigmoid(f + w["p_f"] * c) * c
    c_new += reference.sigmoid(i + w["p_i"] * c) * np.tanh(g)
    h = reference.sigmoid(o + w["p_o"] * c_new) * np.tanh(c_new)
    return (h @ w["weight_hr"] if "weight_hr" in w else h, c_new), {}


def gru_step(w, x, state, activation, reset_after):
    """As RNNoise's, whose candidate is max(0, .) and whose reset comes before the product."""
    (h,) = state
    (R_r, R_z, R_n), (b_r, b_z, b_n) = (
        np.split(w[name], 3, axis=-1) for name in ("weight_hh", "bias_hh")
    )
    x_r, x_z, x_n = np.split(x @ w["weight_ih"] + w["bias_ih"], 3, axis=-1)
    r, z = reference.sigmoid(x_r + h @ R_r + b_r), reference.sigmoid(x_z + h @ R_z + b_z)
    assert not reset_after
    MARGINS.append(np.abs(x_n + (r * h) @ R_n + b_n).min())
    n = function(activation)(x_n + (r * h) @ R_n + b_n)
    return ((1 - z) * n + z * h,), {}


#: How near sums came to where ReLU bends.
MARGINS = []
VARIANTS = {
    "RNN LeCun": ("RNN", {"activation": ("tanh", 1.7159, 2 / 3)}),
    "LSTM madmom": ("LSTM", {"peepholes": True}),
    "GRU RNNoise": ("GRU", {"activation": "relu", "reset_after": False}),
}


@pytest.fixture(autouse=True)
def grids(monkeypatch):
    """The tests' tables know these, too."""
    for name, variant in VARIANTS.items():
        monkeypatch.setitem(cases.CELLS, name, variant)
    for kind, step in (("RNN", rnn_step), ("LSTM", lstm_step), ("GRU", gru_step)):
        monkeypatch.setitem(reference.STEPS, kind, step)


def make(name, *sizes, **arguments):
    return cases.make(name, *sizes, **{"dtype": "float64"} | arguments)


@pytest.mark.parametrize("variant", ["two layers, both directions", "reset"])
@pytest.mark.parametrize("name", VARIANTS)
def test_gradients(name, variant):
    options = dict(gradients.VARIANTS[variant])
    arguments = {key: options.pop(key) for key in ("reset",) if key in options}
    layer = make(name, gradients.I, gradients.H, **options)
    for seed in range(100):  # until no sum comes near 0 where ReLU is
        p = problem(layer, gradients.T, gradients.B, seed)
        MARGINS.clear()
        expected(name, layer, p, **arguments)
        if min(MARGINS, default=1) > 1e-3:
            break
    gradients.check(name, layer, p, **arguments)


@pytest.mark.parametrize("name", VARIANTS)
def test_values_streams_steps_and_files(name, tmp_path):
    projected = {"proj_size": 5} if name == "LSTM madmom" else {}
    layer = make(name, 4, 9, num_layers=2, **projected)
    p = problem(layer, 12, 2)
    y, final, tape = layer.forward(p.x, as_state(p.state), return_gates=True)
    wanted, wanted_final, _ = expected(name, layer, p)
    for mine, its in zip((y, *states(final)), (wanted, *wanted_final), strict=True):
        assert_close(mine, its, TOLERANCE["float64"])
    # What of its gates the backward pass reads, a scaled tanh before it is scaled.
    assert set(tape.gates[0]) >= (set() if name == "RNN LeCun" else set(layer._cell.gates))

    y, _ = layer(p.x)
    stream = layer.stream(2)
    assert np.array_equal(np.stack([stream.step(row).copy() for row in p.x[:5]]), y[:5])
    assert np.array_equal(stream.block(p.x[5:]), y[5:])

    layer.save(tmp_path / "variant.safetensors")
    for other in (
        fastrnn.load(tmp_path / "variant.safetensors"),
        pickle.loads(pickle.dumps(layer)),
        type(layer)(**layer.config()),
    ):
        assert other.config() == layer.config()
        assert other._cell is layer._cell
        other.load_state_dict(layer.state_dict())
        assert np.array_equal(other(p.x)[0], y)

    if not projected:
        step = cases.make_cell(name, 4, 9, dtype="float64")
        names = dict(step.parameters)
        step.load_state_dict({key: layer.parameters[f"{key}_l0"] for key in names})
        one = make(name, 4, 9)
        one.load_state_dict({f"{key}_l0": value for key, value in step.parameters.items()})
        assert np.array_equal(states(step(p.x[0]))[0], one(p.x[:1])[0][0])


def test_each_choice_is_in_its_place():
    squash, soft = activation("hard_sigmoid"), activation("elu", 0.5)
    chosen = {"activation": ("elu", 0.5), "recurrent_activation": "hard_sigmoid"}
    assert fastrnn.LSTM(3, 4, **chosen)._cell is variants.lstm(
        squash, soft, soft, None, False, False
    )
    assert fastrnn.LSTMCell(3, 4, **chosen)._cell is variants.lstm(
        squash, soft, soft, None, False, False
    )
    assert fastrnn.GRU(3, 4, **chosen)._cell is variants.gru(squash, soft, None, True)
    before = fastrnn.GRUCell(3, 4, reset_after=False, **chosen)
    assert before._cell is variants.gru(squash, soft, None, False)
    assert fastrnn.RNNCell(3, 4, activation=("elu", 0.5))._cell is variants.rnn(soft, None)


def test_usual_choices_are_the_cells_written_by_hand():
    plain = fastrnn.LSTM(3, 4, activation="tanh", recurrent_activation="sigmoid", peepholes=False)
    assert plain._cell is fastrnn.LSTM(3, 4)._cell
    assert plain._cell is fastrnn.LSTM(3, 4, activation=("tanh", 1.0, 1.0))._cell
    assert "activation" not in plain.config()
    relu = fastrnn.RNN(3, 4, activation="relu")
    assert relu._cell is fastrnn.RNN(3, 4, nonlinearity="relu")._cell
    assert (relu.nonlinearity, relu.activation) == ("relu", None)
    before = fastrnn.GRUCell(3, 4, reset_after=False, activation=["tanh"])
    assert before._cell is fastrnn.GRU(3, 4, reset_after=False)._cell
    assert fastrnn.GRU(3, 4, activation=["elu", 0.5]).activation == ("elu", 0.5)
    with pytest.raises(AttributeError, match="activation of this LSTM is fixed at 'tanh'"):
        plain.activation = "relu"


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        ("LSTM", {"activation": "swish"}, ValueError, "activation is 'swish', wanted one of tanh"),
        ("LSTM", {"activation": None}, TypeError, "activation is None, wanted a name"),
        ("LSTM", {"activation": ("relu", 1.0)}, ValueError, "relu has 0 parameters, and 1 came"),
        ("GRU", {"recurrent_activation": ("elu", "x")}, TypeError, "recurrent_activation is "),
        ("GRU", {"recurrent_activation": ("elu", np.nan)}, TypeError, "recurrent_activation is "),
        ("GRU", {"activation": 7}, TypeError, "activation is 7, wanted a name"),
        ("GRU", {"activation": ()}, TypeError, r"activation is \(\), wanted a name"),
        ("LSTMCell", {"peepholes": 1}, TypeError, "peepholes is 1, wanted True or False"),
        ("RNN", {"nonlinearity": "elu"}, ValueError, "nonlinearity is 'elu', wanted "),
        (
            "RNN", {"nonlinearity": "relu", "activation": "elu"}, ValueError,
            "nonlinearity is 'relu' and activation 'elu', wanted one",
        ),
    ],
)  # fmt: skip
def test_bad_choices(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(fastrnn, kind)(3, 4, **arguments)


def test_other_kinds_take_none():
    with pytest.raises(TypeError, match="JANET has no argument 'activation'"):
        fastrnn.cells.JANET(3, 4, activation="relu")
    with pytest.raises(TypeError, match="peepholes"):
        fastrnn.GRU(3, 4, peepholes=True)
