"""`fastrnn.cuda`: device functions in kernels of a user's own."""

import subprocess
import sys

import numpy as np
import pytest
from numba import config, cuda

import compilers
import reference

compilers.need("numba_cuda")
pytestmark = pytest.mark.compilers

H = 5
#: Pre-activations of a step, and its states.
SHAPES = {
    "rnn_tanh": (1, 1), "rnn_relu": (1, 1), "lstm": (4, 2), "gru": (4, 1),
    "gru_reset_before": (3, 1), "reset_state": (2, 1),
}  # fmt: skip
NUMBERS = ("exp", "sigmoid", "tanh", "relu")


def kernel_of_step(name):
    """out (N, H): new states of sums (S, H) and states (N, H)."""
    import fastrnn.cuda

    function = getattr(fastrnn.cuda, name)
    if SHAPES[name] == (4, 2):

        def run(sums, states, out):
            u = cuda.grid(1)
            if u < out.shape[1]:
                gates = (sums[0, u], sums[1, u], sums[2, u], sums[3, u])
                out[0, u], out[1, u] = function(gates, (states[0, u], states[1, u]))
    elif SHAPES[name] == (4, 1):

        def run(sums, states, out):
            u = cuda.grid(1)
            if u < out.shape[1]:
                gates = (sums[0, u], sums[1, u], sums[2, u], sums[3, u])
                (out[0, u],) = function(gates, (states[0, u],))
    elif SHAPES[name] == (3, 1):

        def run(sums, states, out):
            u = cuda.grid(1)
            if u < out.shape[1]:
                (out[0, u],) = function((sums[0, u], sums[1, u], sums[2, u]), (states[0, u],))
    elif SHAPES[name] == (2, 1):

        def run(sums, states, out):
            u = cuda.grid(1)
            if u < out.shape[1]:
                out[0, u] = function((sums[0, u], sums[1, u]), (states[0, u],))
    else:

        def run(sums, states, out):
            u = cuda.grid(1)
            if u < out.shape[1]:
                (out[0, u],) = function((sums[0, u],), (states[0, u],))

    return run


def kernel_of_number(name):
    import fastrnn.cuda

    function = getattr(fastrnn.cuda, name)

    def run(x, out):
        i = cuda.grid(1)
        if i < out.size:
            out[i] = function(x[i])

    return run


def wanted_step(name, sums, states):
    """By the reference: weights of no input and no state, so that sums are the biases."""
    h = states[0]
    if name == "reset_state":
        return (reference.sigmoid(sums[0]) * h)[None]
    if name == "gru_reset_before":
        r, z, n = sums
        return ((1 - reference.sigmoid(z)) * np.tanh(n) + reference.sigmoid(z) * h)[None]
    zeros = np.zeros_like(np.concatenate(sums))
    b_ih, b_hh = np.concatenate(sums), zeros
    if name == "gru":
        n_x, r, z, n_h = sums
        b_ih, b_hh = np.concatenate([r, z, n_x]), np.concatenate([0 * r, 0 * z, n_h])
    w = {
        "weight_ih": np.zeros((1, b_ih.size)), "weight_hh": np.zeros((H, b_ih.size)),
        "bias_ih": b_ih, "bias_hh": b_hh,
    }  # fmt: skip
    rows = tuple(state[None] for state in states)
    x = np.zeros((1, 1))
    if name == "lstm":
        new, _ = reference.lstm_step(w, x, rows)
    elif name == "gru":
        new, _ = reference.gru_step(w, x, rows)
    else:
        new, _ = reference.rnn_step(w, x, rows, name.partition("_")[2])
    return np.concatenate(new)


simulated = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="needs Numba's simulator")
compiled = pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="the simulator has no compiler")


@simulated
@pytest.mark.parametrize("name", SHAPES)
def test_a_step_is_the_references(name):
    rng = np.random.default_rng(0)
    S, N = SHAPES[name]
    sums, states = rng.standard_normal((S, H)), rng.standard_normal((N, H))
    out = np.full((N, H), np.nan)
    cuda.jit(kernel_of_step(name))[1, 8](sums, states, out)
    np.testing.assert_allclose(out, wanted_step(name, sums, states), rtol=1e-13)


@simulated
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_keeps_its_type(name, dtype):
    x = np.array([-3.0, -0.5, 0.0, 2.0], dtype)
    out = np.full(4, np.nan, dtype)
    cuda.jit(kernel_of_number(name))[1, 8](x, out)
    functions = {
        "exp": np.exp, "sigmoid": reference.sigmoid, "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
    }  # fmt: skip
    # Rounded once or twice from a value of the standard library's.
    np.testing.assert_allclose(out, functions[name](x), rtol=4 * np.finfo(dtype).eps)


@compiled
@pytest.mark.parametrize("name", [*SHAPES, *NUMBERS])
def test_kernels_compile_and_hold_no_float64(name):
    from numba import types

    from fastrnn_kernels.cuda import ptx

    kernel = kernel_of_number(name) if name in NUMBERS else kernel_of_step(name)
    array = types.float32[::1] if name in NUMBERS else types.float32[:, ::1]
    count = 2 if name in NUMBERS else 3
    with ptx._no_gpu((9, 0)):
        text, _ = cuda.compile_ptx(kernel, types.void(*[array] * count), cc=(9, 0))
    assert ".entry" in text
    assert ".f64" not in text
    ptx.assembled(text, (9, 0))


@compiled
def test_importing_fastrnn_does_not_import_it():
    script = "import sys, fastrnn; print('fastrnn.cuda' in sys.modules, hasattr(fastrnn, 'cuda'))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False", "False"]
