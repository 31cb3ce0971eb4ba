"""Arrays of other libraries on the GPU, on Numba's simulator: taken, given back, or refused."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

from cases import make, make_cell, problem, run
from cuda_arrays import MANAGED, METAL, GpuArray, OfDlpack, OfInterface, arrays_on_the_gpu, gpu

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

if config.ENABLE_CUDASIM:
    from fastrnn_kernels.cuda import choice

T, B, I, H = 3, 2, 3, 4


@pytest.fixture(autouse=True)
def on_the_gpu():
    # Where arrays come from is no matter to paths: the one that the simulator is quickest on.
    with arrays_on_the_gpu(), choice.only("stepwise"):
        yield


@pytest.fixture
def layer():
    return make("LSTM", I, H, device="cuda")


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    "wrap", [gpu, OfDlpack, OfInterface, lambda array: OfDlpack(array, MANAGED)]
)
def test_an_array_on_the_gpu_gives_arrays_there(wrap, device):
    layer = make("GRU", I, H, device=device)
    p = problem(layer, T, B)
    wanted = run(make("GRU", I, H, device="cuda"), p)
    y, state, tape = layer.forward(wrap(p.x), wrap(p.state[0]))
    assert tape.device == "cuda"
    gradients = layer.backward(tape, wrap(p.dy), wrap(p.dstate[0]))
    found = {"y": y, "state": state, "dx": gradients.x, "dstate": gradients.state}
    same = {"y": wanted.y, "state": wanted.state[0], "dx": wanted.dx, "dstate": wanted.dstate[0]}
    for name, array in (found | dict(gradients.parameters)).items():
        assert isinstance(array, GpuArray), name
        expected = same[name] if name in same else wanted.parameters[name]
        np.testing.assert_array_equal(np.asarray(array), expected, err_msg=name)


def test_nothing_is_copied(layer, monkeypatch):
    seen = []
    kernels = layer._version.kernels
    plain = kernels.start_forward

    def start_forward(weights, x, *arguments, **options):
        seen.append(x)
        return plain(weights, x, *arguments, **options)

    monkeypatch.setattr(kernels, "start_forward", start_forward)
    x = np.ones((T, B, I), np.float32)
    for wrapped in (gpu(x), OfDlpack(x), OfInterface(x)):
        layer(wrapped)
        assert np.shares_memory(seen.pop(), x)


def test_numpy_arrays_give_numpy_arrays(layer):
    x = np.ones((T, B, I), np.float32)
    h, c = np.zeros((1, B, H), np.float32), gpu(np.zeros((1, B, H), np.float32))
    y, state = layer(x, (h, c))
    assert [type(array) for array in (y, *state)] == [np.ndarray] * 3


def test_lengths_and_reset_on_the_gpu(layer):
    p = problem(layer, T, B)
    reset = np.array([[False, False], [True, False], [False, True]])
    lengths = np.array([2, 3])
    wanted, _ = layer(p.x, p.state, lengths, reset)
    found, _ = layer(p.x, p.state, gpu(lengths), gpu(reset))
    np.testing.assert_array_equal(found, wanted)


def test_a_cell_takes_them_too():
    cell = make_cell("LSTM", I, H, device="cuda")
    x = np.ones((B, I), np.float32)
    state, tape = cell.forward(gpu(x))
    assert all(isinstance(array, GpuArray) for array in state)
    for mine, its in zip(state, cell(x), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), its)
    gradients = cell.backward(tape, tuple(gpu(np.ones((B, H), np.float32)) for _ in "hc"))
    assert isinstance(gradients.x, GpuArray)


def test_parameters_on_the_gpu_are_copied_to_the_host(layer):
    bias = np.arange(4 * H, dtype=np.float32)
    layer.update({"bias_ih_l0": gpu(bias)})
    assert type(layer.parameters["bias_ih_l0"].base) is np.ndarray
    np.testing.assert_array_equal(layer.parameters["bias_ih_l0"], bias)


@pytest.mark.parametrize("name", ["input", r"state \(c\)", "dy", "lengths", "reset"])
def test_another_device_is_refused_by_name(layer, name):
    p = problem(layer, T, B)
    given = {
        "input": p.x, r"state \(c\)": p.state[1], "dy": p.dy,
        "lengths": np.array([2, 3]), "reset": np.zeros((T, B), bool),
    }  # fmt: skip
    given[name] = OfDlpack(given[name], METAL)
    x, c, dy, lengths, reset = given.values()
    _, _, tape = layer.forward(p.x)

    def call():
        if name == "dy":
            layer.backward(tape, dy)
        else:
            layer(x, (p.state[0], c), lengths, reset)

    with pytest.raises(TypeError, match=f"^{name} lies on a device of DLPack's type 8, wanted"):
        call()


def test_another_gpu_is_refused_by_name(monkeypatch):
    from fastrnn_kernels.cuda.launch import arrays

    current = SimpleNamespace(id=0)
    cuda = SimpleNamespace(Device=lambda: current)
    monkeypatch.setattr(arrays, "config", SimpleNamespace(ENABLE_CUDASIM=False))
    monkeypatch.setattr(arrays, "xp", SimpleNamespace(cuda=cuda))
    arrays._first_device.cache_clear()
    try:
        there = SimpleNamespace(device=SimpleNamespace(id=1))
        arrays.check_device(SimpleNamespace(device=SimpleNamespace(id=0)), "input")
        with pytest.raises(RuntimeError, match=r"^state lies on GPU 1, and fastrnn uses GPU 0"):
            arrays.check_device(there, "state")
        current.id = 1
        with pytest.raises(RuntimeError, match="GPU 1 is current, and fastrnn uses GPU 0"):
            arrays.check_device(None, "input")
    finally:
        arrays._first_device.cache_clear()


def test_a_protocol_that_raises_is_said_by_name(layer):
    class Refusing:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("requires grad")

    with pytest.raises(TypeError, match="input cannot be read as an array: requires grad"):
        layer(Refusing())


def test_a_type_that_the_gpu_has_not_is_refused_with_an_array_there(monkeypatch):
    for module in ("device", "models.module"):
        monkeypatch.setattr(f"fastrnn.{module}.GPU_COMPUTE", ("float32", "float64"))
    layer = make("LSTM", I, H, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype 'bfloat16' is for the CPU so far, not for 'cuda'"):
        layer(gpu(np.zeros((T, B, I), np.float32)))


def test_cupys_arrays_are_known_by_their_type(monkeypatch):
    """Their interface is made anew each time that it is asked for."""
    from fastrnn import check

    class Array:
        @property
        def __cuda_array_interface__(self):
            raise AssertionError("asked for")

    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(ndarray=Array))
    array = Array()
    assert check.array("input", array) is array
    assert not check.on_host(array)
