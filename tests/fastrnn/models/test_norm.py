"""Layer norm and RMS norm between products and gates, against the equations of their papers."""

import ctypes
import pickle
import shutil
from unittest import mock

import numpy as np
import pytest

import fastrnn
import fastrnn.cells
import reference
from cases import as_state, assert_close, problem, states
from fastrnn.export import export

LENGTHS, RESET = np.array([4, 0, 3]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool)


def normalised(a, gain, norm):
    """Ba et al. 2016, eq. 3, or Zhang and Sennrich 2019, eq. 4: over all gates' units."""
    if norm == "layer":
        a = a - a.mean(axis=-1, keepdims=True)
    return gain * a / np.sqrt((a * a).mean(axis=-1, keepdims=True) + 1e-5)


def parts(w, x, h, norm):
    """Of each gate LN(W x) + b_ih and LN(R h) + b_hh."""
    of_x = normalised(x @ w["weight_ih"], w["norm_ih"], norm) + w["bias_ih"]
    of_h = normalised(h @ w["weight_hh"], w["norm_hh"], norm) + w["bias_hh"]
    many = of_x.shape[-1] // h.shape[-1]
    return np.split(of_x, many, axis=-1), np.split(of_h, of_h.shape[-1] // h.shape[-1], axis=-1)


def lstm(w, x, state, norm):
    h, c = state
    i, f, g, o = (a + b for a, b in zip(*parts(w, x, h, norm), strict=True))
    c = reference.sigmoid(f) * c + reference.sigmoid(i) * np.tanh(g)
    return (reference.sigmoid(o) * np.tanh(c), c), {}


def gru(w, x, state, norm):
    (h,) = state
    (x_r, x_z, x_n), (h_r, h_z, h_n) = parts(w, x, h, norm)
    r, z = reference.sigmoid(x_r + h_r), reference.sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + r * h_n) + z * h,), {}


def rnn(w, x, state, norm):
    (h,) = state
    (of_x,), (of_h,) = parts(w, x, h, norm)
    return (np.tanh(of_x + of_h),), {}


def light_ru(w, x, state, norm):
    """One of two gates has an R."""
    (h,) = state
    (x_f, x_n), (h_f,) = parts(w, x, h, norm)
    f = reference.sigmoid(x_f + h_f)
    return ((1 - f) * h + f * np.tanh(x_n),), {}


STEPS = {"LSTM": lstm, "GRU": gru, "RNN": rnn, "LightRU": light_ru}
CASES = {
    "LSTM": (fastrnn.LSTM, {"num_layers": 2, "bidirectional": True, "norm": "layer"}),
    "GRU": (fastrnn.GRU, {"norm": "layer", "bidirectional": True}),
    "RNN": (fastrnn.RNN, {"norm": "rms", "bias": False}),
    "LightRU": (fastrnn.cells.LightRU, {"norm": "rms", "num_layers": 2}),
}


def made(name, H=3, **arguments):
    """A layer whose gains are not one, and whose R is no small one: ε is no large part then."""
    make, options = CASES[name]
    layer = make(2, H, **{"seed": 0, "dtype": "float64"} | options | arguments)
    draw = np.random.default_rng(5)
    wide = ("norm", "weight")
    layer.update(
        {n: draw.normal(size=v.shape) for n, v in layer.parameters.items() if n.startswith(wide)}
    )
    return layer


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    layer = made(name)
    p = problem(layer, 4, 3)
    arguments = {"lengths": LENGTHS, "reset": RESET}
    y, final, tape = layer.forward(p.x, as_state(p.state), **arguments)
    found = layer.backward(tape, p.dy, as_state(p.dstate))
    start = {f"state {k}": part for k, part in enumerate(p.state)}
    given = {"x": p.x} | start | layer.state_dict()
    assert list(found.parameters) == list(layer.parameters)

    def computed(values):
        state = tuple(values[key] for key in start)
        return reference.layer(
            name, values, values["x"], state, **arguments, norm=CASES[name][1]["norm"]
        )

    def loss(values):
        out, last, _ = computed(values)
        return reference.inner((out, *last), (p.dy, *p.dstate))

    with mock.patch.dict(reference.STEPS, STEPS):
        wanted, last, _ = computed(given)
        differences = reference.finite_differences(loss, given)
    assert_close(y, wanted, 1e-13, "y")
    assert_close(layer(p.x, as_state(p.state), **arguments)[0], wanted, 1e-13, "y")
    for mine, its in zip(states(final), last, strict=True):
        assert_close(mine, its, 1e-13, "state")
    gradients = dict(zip(start, states(found.state), strict=True)) | {"x": found.x}
    gradients |= found.parameters
    for key, gradient in differences.items():
        # Third derivatives are large where a norm divides by little.
        assert_close(gradients[key], gradient, 1e-5, key)
        assert gradient.any() or "bias_hh" in key, key


def test_threads_checkpoints_and_streams_have_the_same_bits():
    threads = fastrnn.get_num_threads()
    # Units that fill no panel, in blocks that no panel begins with.
    layer = made("LSTM", 33, dtype="float32", bidirectional=False, blocks=3)
    draw = np.random.default_rng(0)
    x, dy = (draw.normal(size=(7, 5, width)).astype(np.float32) for width in (2, 33))
    found = []
    try:
        for many, every in ((1, None), (2, None), (2, 3)):
            fastrnn.set_num_threads(many)
            y, _, tape = layer.forward(x, lengths=np.array([7, 0, 5, 7, 1]), checkpoint=every)
            gradients = layer.backward(tape, dy)
            found.append([y, gradients.x, *gradients.parameters.values()])
    finally:
        fastrnn.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(np.array_equal, found[0], other))
    y, _ = layer(x)
    stream = layer.stream(5)
    assert np.array_equal(np.concatenate([stream.block(x[:3]), [stream.step(x[3])]]), y[:4])
    alone = layer.stream(1)
    assert np.array_equal([alone.step(row)[0].copy() for row in x[:, :1]], y[:, 0])
    exact = made("LSTM", 33, bidirectional=False, blocks=3)
    assert_close(y, exact(x.astype(np.float64))[0], 1e-4)


def test_files_copies_single_steps_and_c(tmp_path):
    layer = made("GRU", bidirectional=False)
    x = np.random.default_rng(0).normal(size=(4, 1, 2))
    y, _ = layer(x)
    layer.save(tmp_path / "gru.safetensors")
    assert fastrnn.GRU(2, 6).description().find("norm") == -1  # as files always were
    for other in (fastrnn.load(tmp_path / "gru.safetensors"), pickle.loads(pickle.dumps(layer))):
        assert other.config() == layer.config()
        assert np.array_equal(other(x)[0], y)
    with pytest.raises(ValueError, match="norm='layer', which is for fastrnn's own format"):
        layer.save(tmp_path / "gru.pt")
    cell = fastrnn.GRUCell(2, 3, dtype="float64", norm="layer")
    assert (cell.parameters["norm_hh"] == 1).all()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.parameters.items()})
    for _ in range(3):  # the last are prepared
        assert np.array_equal(cell(x[0]), y[0])
    h, tape = cell.forward(x[0])
    assert np.array_equal(h, y[0])
    _, _, whole = layer.forward(x[:1])
    mine, its = cell.backward(tape, np.ones_like(h)), layer.backward(whole, np.ones_like(y[:1]))
    for key, gradient in mine.parameters.items():
        assert np.array_equal(gradient, its.parameters[f"{key}_l0"]), key
    if shutil.which("cc") is not None:
        export(layer, tmp_path, name="gru")
        library = ctypes.CDLL(str(next(tmp_path.glob("libgru.[sd]*"))))
        state, out = (
            ctypes.create_string_buffer(library.gru_state_size(), 1 << 16),
            np.empty_like(y),
        )
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, out)]
        assert library.gru_reset(state) == 0
        assert library.gru_block(state, *pointers, ctypes.c_size_t(4)) == 0
        assert np.array_equal(out, y)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (fastrnn.LSTM, {"norm": "batch"}, "norm is 'batch', wanted"),
        (fastrnn.LSTM, {"norm": "rms", "proj_size": 4}, "wanted None with proj_size = 4"),
        (fastrnn.GRU, {"norm": "layer", "reset_after": False}, "another value in place of h in n"),
        (fastrnn.LSTMCell, {"norm": "layer", "dtype": "bfloat16"}, "wanted None with dtype"),
    ],
)
def test_what_cannot_have_a_norm(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(2, 8, **arguments)


def test_auto_is_the_cpu():
    """Also where there is a GPU: its kernels have no norms."""
    layer = made("RNN", device="auto")
    found = fastrnn.explain(layer, np.zeros((4, 1, 2)), training=True)
    assert (found.device, found.reason) == (
        "cpu", "norms between products and gates are the CPU's so far"
    )  # fmt: skip
    kernels = layer._checked_kernels
    with (
        mock.patch("fastrnn.models.module.kernels_for", return_value=mock.Mock(ON_HOST=False)),
        pytest.raises(ValueError, match="norm is 'rms', which is for the CPU so far, not 'cuda'"),
    ):
        kernels("cuda")
