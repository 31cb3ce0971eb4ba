"""Which devices a machine has, and arrays that lie on another than the one that computes."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from cases import make, problem
from fastrnn import device


@pytest.fixture
def layer():
    return make("LSTM", 64, 64)


@pytest.fixture
def x():
    """An input of so many products that "auto" looks for a GPU."""
    return np.random.default_rng(0).standard_normal((128, 8, 64), np.float32)


class OnGpu(np.ndarray):
    """What an array of a GPU is taken for."""


@pytest.fixture
def adopted(monkeypatch):
    monkeypatch.setattr("fastrnn.check._on_gpu", lambda name, value: value.array.view(OnGpu))


class Elsewhere:
    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return 2, 0


@pytest.mark.parametrize("name", ["input", "state", "dy", "reset"])
def test_an_array_on_the_gpu_is_refused_by_a_layer_of_the_cpu(adopted, name):
    layer = make("GRU", 3, 4, device="cpu")
    p = problem(layer, 3, 2)
    given = {"input": p.x, "state": p.state[0], "dy": p.dy, "reset": np.zeros((3, 2), bool)}
    _, _, tape = layer.forward(p.x)
    given[name] = Elsewhere(given[name])

    def call():
        if name == "dy":
            layer.backward(tape, given["dy"])
        else:
            layer(given["input"], given["state"], reset=given["reset"])

    with pytest.raises(TypeError, match=f"^{name} lies on a GPU, and this runs on the CPU"):
        call()


@pytest.mark.smoke
def test_an_array_of_the_host_by_dlpack_alone():
    class Host:
        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    x = np.random.default_rng(0).standard_normal((3, 2, 3), np.float32)
    layer = make("GRU", 3, 4)
    np.testing.assert_array_equal(layer(Host(x))[0], layer(x)[0])


@pytest.fixture
def driver(monkeypatch):
    """Lets a test say what the NVIDIA driver reports."""

    def say(**found):
        monkeypatch.setattr(device, "_driver", lambda: device.Driver(**found))
        device._gpu_kernels.cache_clear()
        device._trial.cache_clear()

    yield say
    device._gpu_kernels.cache_clear()
    device._trial.cache_clear()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"reason": "the NVIDIA driver reports error 803", "broken": True}, "error 803"),
        ({"gpus": ("GPU X",)}, "cupy not installed"),
    ],
)
def test_an_unfit_gpu_is_warned_of_once_and_raises_when_asked_for(
    monkeypatch, driver, layer, x, found, reason
):
    monkeypatch.setattr(device, "find_spec", lambda name: None if name == "cupy" else object())
    driver(**found)
    wanted, _ = make("LSTM", 64, 64, device="cpu")(x)
    with pytest.warns(RuntimeWarning, match=f"device 'auto' means the CPU here.*{reason}"):
        y, _ = layer(x)
    np.testing.assert_array_equal(y, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("GRU", 64, 64)(x)
    with pytest.raises(RuntimeError, match=f"device 'cuda' cannot be used: .*{reason}"):
        layer.to("cuda")
    assert layer.device == "auto"
    assert reason in fastrnn.explain(layer, x).reason


def test_a_driver_that_fails_in_use_is_unfit(monkeypatch, driver, layer, x):
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    driver(gpus=("GPU X",))

    def fail(name):
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(device, "import_module", fail)
    with pytest.warns(RuntimeWarning, match=r"ImportError: libcudart\.so\.13"):
        layer(x)


@pytest.mark.parametrize(
    "reason", ["no NVIDIA driver was found", "the NVIDIA driver reports no GPU"]
)
def test_no_gpu_is_no_matter_for_a_warning(driver, layer, x, reason):
    driver(reason=reason)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
    assert fastrnn.explain(layer, x).reason == reason


def test_a_forked_child_leaves_the_gpu_alone(monkeypatch):
    """What has used CUDA cannot be forked: the child's calls would fail."""

    class Library:
        def __getattr__(self, name):
            raise AssertionError("the driver was called")

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(device, "_first_process", 1)
    assert "forked" in device._driver().reason


class Library:
    """Stands in for the NVIDIA driver's."""

    def __init__(self, status, names):
        self._status, self._names = status, names

    def cuInit(self, flags):
        return self._status

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self._names)
        return 0

    def cuDeviceGetName(self, name, size, index):
        name.value = self._names[index]
        return 0


@pytest.mark.parametrize(
    ("status", "names", "wanted"),
    [
        (0, [b"GPU X", b"GPU Y"], device.Driver(("GPU X", "GPU Y"))),
        (0, [], device.Driver(reason="the NVIDIA driver reports no GPU")),
        (100, [], device.Driver(reason="the NVIDIA driver reports no GPU")),
        (803, [], device.Driver((), "the NVIDIA driver reports error 803", broken=True)),
    ],
)
def test_what_the_driver_reports(monkeypatch, status, names, wanted):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Library(status, names))
    monkeypatch.setattr(device, "_first_process", 0)
    assert device._driver() == wanted
    assert (device._first_process != 0) == bool(wanted.gpus)


def test_what_a_trial_of_the_gpu_finds(monkeypatch, driver):
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    driver(gpus=("GPU X",))
    words = ["its compute capability is 6.1, and kernels need 7.5", ""]
    module = SimpleNamespace(trial=lambda: words.pop(0))
    monkeypatch.setattr(device, "import_module", lambda name: module)
    found = device.devices()[1]
    assert not found.available
    assert found.reason == "its compute capability is 6.1, and kernels need 7.5"
    device._trial.cache_clear()
    assert device.devices()[1].available
