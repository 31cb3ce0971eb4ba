"""Streams of a cell with a constant state: to begin anew leaves it as it is."""

import ctypes

import numpy as np
import pytest
from numba import njit

import fastrnn
from fastrnn.models.layer import Layer
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one, tanh
from fastrnn_kernels.cpu.stream.program import HEADER, Program


@njit
def _forward(sums, states):
    h, c, p = states
    (a,) = sums
    c = tanh(a + p * c)
    return (h * p + c, c, p), (c,)


@njit
def _backward(d_states, saved, states):
    dh, dc, dp = d_states
    (c_new,) = saved
    h, c, p = states
    da = (dh + dc) * (one(dh) - c_new * c_new)
    return (da,), (dh * p, da * p, dp + dh * h + da * c)


CELL = Cell("peephole", ("a",), ("h", "c", "p"), ("a",), _forward, _backward, constant=("p",))
T, B, I, H = 5, 3, 4, 21


class Peephole(Layer):
    kind = "Peephole"

    def __init__(self, input_size, hidden_size, num_layers=1, *, dtype="float32", device="cpu"):
        self._configure(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, bias=True,
            batch_first=False, dropout=0.0, bidirectional=False, device=device, dtype=dtype,
        )  # fmt: skip
        self._draw(0)

    def _configure(self, **arguments):
        self._set_up_stack(**arguments)

    @property
    def _cell(self):
        return CELL


def reference(layer, x, state, reset=None):
    """The outputs (T, B, H) in plain NumPy; `reset` (T, B) goes back to h = c = 0."""
    values = {name: array.astype(np.float64) for name, array in layer.parameters.items()}
    for k in range(layer.num_layers):
        h, c, p = (one[k].astype(np.float64) for one in state)
        w, r = values[f"weight_ih_l{k}"], values[f"weight_hh_l{k}"]
        b = values[f"bias_ih_l{k}"] + values[f"bias_hh_l{k}"]
        y = []
        for t, x_t in enumerate(x):
            if reset is not None:
                h, c = (np.where(reset[t][:, None], 0, one) for one in (h, c))
            c = np.tanh(x_t @ w.T + h @ r.T + b + p * c)
            h = h * p + c
            y.append(h)
        x = np.stack(y)
    return x


@pytest.fixture(params=["float32", "float64"])
def layer(request):
    return Peephole(I, H, 2, dtype=request.param)


@pytest.fixture
def x(layer):
    return np.random.default_rng(1).standard_normal((2 * T, B, I)).astype(layer.dtype)


def constants(layer, rows=B):
    """A state of zeros, but for p."""
    rng = np.random.default_rng(2)
    h, c, p = np.zeros((3, layer.num_layers, rows, H), layer.dtype)
    p[...] = rng.uniform(-0.9, 0.9, p.shape)
    return h, c, p


def close(found, wanted):
    single = found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 if single else 1e-13)


def test_a_layer_gives_what_the_reference_gives(layer, x):
    state = constants(layer)
    y, (_, _, p) = layer(x, state)
    close(y, reference(layer, x, state))
    np.testing.assert_array_equal(p, state[2])


def test_rows_that_begin_anew_in_a_sequence_keep_theirs(layer, x):
    state, reset = constants(layer), np.random.default_rng(3).random((2 * T, B)) < 0.3
    close(layer(x, state, reset=reset)[0], reference(layer, x, state, reset))


def test_a_stream_that_is_reset_keeps_it(layer, x):
    state = constants(layer)
    wanted = reference(layer, x[:T], state)
    stream = layer.stream(B)
    stream.state = state
    for begin_anew in (lambda: None, stream.reset, lambda: setattr(stream, "state", None)):
        begin_anew()
        np.testing.assert_array_equal(stream.state[2], state[2])
        close(np.stack([stream.step(one).copy() for one in x[:T]]), wanted)


def test_rows_that_are_reset_keep_theirs(layer, x):
    state, stream = constants(layer), layer.stream(B)
    stream.state = state
    stream.block(x[:T])
    stream.reset([1])
    reset = np.zeros((2 * T, B), bool)
    reset[T, 1] = True
    close(stream.block(x[T:]), reference(layer, x, state, reset)[T:])


@njit
def anew(handle, x, y):
    fastrnn.jit.reset(handle)
    return fastrnn.jit.block(handle, x, y)


def test_compiled_code_that_resets_keeps_it(layer, x):
    state, stream = constants(layer), layer.stream(B)
    stream.state = state
    stream.block(x[T:])
    y = np.empty((T, B, H), layer.dtype)
    assert anew(stream.handle, x[:T], y) == fastrnn.jit.DONE
    close(y, reference(layer, x[:T], state))


def test_c_code_that_resets_keeps_it(layer, x):
    """The first reset of memory zeroes all of it, whatever stood there."""
    llvm = pytest.importorskip("llvmlite.binding")
    from fastrnn_kernels.cpu.isa import host
    from fastrnn_kernels.cpu.stream.objects import Target, emit

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    features = ",".join(f"+{name}" for name in sorted(host.FEATURES))
    stages = layer._stages(1, "full")
    code, size = emit(stages, "anew", Target(llvm.get_process_triple(), host.NAME, features))
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine()
    )
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = ctypes.c_void_p
    reset = ctypes.CFUNCTYPE(ctypes.c_int, address)(engine.get_function_address("anew_reset"))
    block = ctypes.CFUNCTYPE(ctypes.c_int, address, address, address, ctypes.c_size_t)(
        engine.get_function_address("anew_block")
    )
    memory = np.full(size // layer.dtype.itemsize, np.nan, layer.dtype)
    program = Program.of(stages, False)
    state = constants(layer, 1)
    y = np.empty((T, 1, H), layer.dtype)
    one = np.ascontiguousarray(x[:T, :1])
    assert reset(memory.ctypes.data) == 0
    assert not memory[HEADER // memory.itemsize :].any()
    for (_, rest), p in zip(program.states(memory), state[2], strict=True):
        rest[1] = p
    for _ in range(2):
        assert reset(memory.ctypes.data) == 0
        assert block(memory.ctypes.data, one.ctypes.data, y.ctypes.data, T) == 0
        close(y, reference(layer, one, state))
