"""Streams of a cell with a constant state: a reset leaves it as it is."""

import ctypes

import numpy as np
import pytest
from click.testing import CliRunner
from numba import njit

import fastrnn
from fastrnn.cli.main import main
from fastrnn.export import export
from fastrnn.models.layer import Layer
from fastrnn.tools.follow import follow
from fastrnn_kernels.cells import variants
from fastrnn_kernels.cells.activations import SIGMOID, TANH
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cells.functions import one, tanh
from fastrnn_kernels.cpu.stream.functions import HEADER
from fastrnn_kernels.cpu.stream.program import Program


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
    kind = "PeepholeOfThisTest"  # no cell that the registry may come to have

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


@pytest.fixture
def dtype():
    """float32, but where a test asks for both: states lie elsewhere then."""
    return "float32"


@pytest.fixture
def layer(dtype):
    return Peephole(I, H, 2, dtype=dtype)


BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])


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


@BOTH
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


def test_a_model_of_several_layers_is_given_it_by_its_layers(layer, x):
    model = fastrnn.Sequential(layer, fastrnn.Linear(H, I, dtype=layer.dtype, seed=0), layer)
    states = constants(layer), constants(layer)
    wanted = model(x[:T], states)[0]
    stream = model.stream(B)
    stream.state = states
    for begin_anew in (lambda: None, stream.reset):
        begin_anew()
        close(stream.block(x[:T]), wanted)
        for found, state in zip(stream.state, states, strict=True):
            np.testing.assert_array_equal(found[2], state[2])


def test_a_client_that_comes_has_nothing_of_the_one_before(layer, x):
    stream = layer.stream(B)
    for _ in range(B):
        stream.add_stream()
    stream.state = constants(layer)
    stream.block(x[:T])
    before = stream.state
    stream.remove_stream(1)
    assert stream.add_stream() == 1
    for found, old in zip(stream.state, before, strict=True):
        np.testing.assert_array_equal(found[:, 0::2], old[:, 0::2])
        assert not found[:, 1].any()


class Projected(fastrnn.LSTM):
    """With peepholes."""

    @property
    def _cell(self):
        return variants.lstm(SIGMOID, TANH, TANH, None, peepholes=True, coupled=False)


def test_a_projection_leaves_them_as_wide_as_they_are():
    layer = Projected(I, H, proj_size=7, dtype="float64", seed=0)
    x, rng = np.random.default_rng(4).standard_normal((T, B, I)), np.random.default_rng(5)
    state = np.zeros((1, B, 7)), *rng.uniform(-0.9, 0.9, (4, 1, B, H))
    y, final = layer(x, state)
    plain = fastrnn.LSTM(I, H, proj_size=7, dtype="float64", seed=0)
    assert np.abs(y - plain(x, state[:2])[0]).max() > 1e-3  # the peepholes do something
    for found, given in zip(final[2:], state[2:], strict=True):
        np.testing.assert_array_equal(found, given)
    stream = layer.stream(B)
    stream.state = state
    close(stream.block(x), y)


def test_what_cannot_be_given_it_says_so(layer, tmp_path):
    told = "cell 'peephole' of this model has the constant states p, which "
    model = fastrnn.Sequential(layer, fastrnn.Linear(H, 1, dtype=layer.dtype, seed=0))
    for each in (layer, model):
        with pytest.raises(ValueError, match=f"{told}exported code cannot be given: make a stream"):
            export(each, tmp_path / "build")
        assert not (tmp_path / "build").exists()
        with pytest.raises(ValueError, match=f"{told}`fastrnn stream` cannot be given"):
            follow(each, str(tmp_path / "in.npy"), str(tmp_path / "out.npy"))
    layer.save(tmp_path / "model.safetensors")
    command = ["export", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "build")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {told}exported code")


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
