"""Where a call of device="auto" runs, on machines whose GPU is made up: times are injected."""

import copy
import pickle
import threading
import time
import warnings
from types import ModuleType

import numpy as np
import pytest

import fastrnn
from cases import make, problem, run
from fastrnn import device
from fastrnn.models import auto
from fastrnn.models import module as parameters
from fastrnn_kernels.cache.memo import Memo
from fastrnn_kernels.cpu import device as cpu

I, H, B, T = 64, 64, 8, 128  # 16 MiB multiply-adds of an LSTM: enough to ask


class Times:
    """Stands in for what measures: the seconds of each device, and what was asked."""

    def __init__(self, **seconds):
        self.seconds, self.asked = seconds, []

    def __call__(self, owner, where, T, B, taping):
        self.asked.append((where, T, B, taping))
        if isinstance(self.seconds[where], Exception):
            raise self.seconds[where]
        return self.seconds[where]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Kernels of a GPU: the CPU's, under another name, which count what they run."""
    found = ModuleType("made up")
    vars(found).update({name: value for name, value in vars(cpu).items() if name[0] != "_"})
    found.NAME, found.ON_HOST, found.INFERENCE, found.runs = "cuda", False, (), 0

    def run(jobs, work):
        found.runs += 1
        cpu.run(jobs, work)

    found.run = run
    found.check_forward = found.check_backward = lambda *what: None
    found.room = lambda: (1000, 2000)

    def kernels_of(name):
        return found if name == "cuda" else cpu

    memo = Memo({}, tmp_path)
    monkeypatch.setattr(auto, "memo", lambda: memo)
    monkeypatch.setattr(auto, "_failed", set())
    monkeypatch.setattr(device, "gpu_kernels", lambda: found)
    for module in (device, parameters):
        monkeypatch.setattr(module, "kernels_for", kernels_of)
    monkeypatch.setattr(device, "kernels_of", kernels_of)
    monkeypatch.setattr("fastrnn.models.layer.kernels_of", kernels_of)
    monkeypatch.setattr("fastrnn.models.cells.kernels_of", kernels_of)
    return found


@pytest.fixture
def layer():
    return make("LSTM", I, H)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((T, B, I), np.float32)


def inject(monkeypatch, **seconds):
    times = Times(**seconds)
    monkeypatch.setattr(auto, "measure", times)
    return times


# Ids, as `-k cuda` is for what runs on Numba's simulator.
@pytest.mark.parametrize(
    ("on_cpu", "on_cuda", "where"),
    [(2.0, 1.0, "cuda"), (1.0, 2.0, "cpu")],
    ids=["GPU", "CPU"],
)
def test_the_faster_device_runs_it(monkeypatch, gpu, layer, x, on_cpu, on_cuda, where):
    times = inject(monkeypatch, cpu=on_cpu, cuda=on_cuda)
    wanted, _ = make("LSTM", I, H, device="cpu")(x)
    y, _, tape = layer.forward(x)
    assert tape.device == where
    assert gpu.runs == (where == "cuda")
    np.testing.assert_array_equal(y, wanted)
    assert times.asked == [("cpu", 128, B, True), ("cuda", 128, B, True)]
    layer.backward(tape, y)
    assert gpu.runs == 2 * (where == "cuda"), "backward runs where the forward ran"


def test_it_is_measured_once_for_a_class_of_calls(monkeypatch, gpu, layer, x, tmp_path):
    times = inject(monkeypatch, cpu=2.0, cuda=1.0)
    layer(x)
    assert len(times.asked) == 2
    layer(x)
    layer(x[:100, :5])  # of the same class: up to the next powers of two
    make("LSTM", I, 63)(x)
    assert len(times.asked) == 2
    layer(x[:, :4])
    layer(np.concatenate([x] * 3))  # longer than what is measured
    assert len(times.asked) == 4
    layer.forward(x)
    make("GRU", I, H)(x)
    make("LSTM", I, H, num_layers=2)(x)
    assert len(times.asked) == 10
    # Another process reads what this one has kept.
    monkeypatch.setattr(auto, "memo", lambda: Memo({}, tmp_path))
    layer(x)
    assert len(times.asked) == 10


def test_a_small_call_asks_nothing(monkeypatch, layer, x):
    def fail():
        raise AssertionError("the GPU was asked for")

    monkeypatch.setattr(device, "gpu_kernels", fail)
    layer(x[:1, :1])
    fastrnn.LSTMCell(I, H)(x[0])
    fastrnn.LSTM(I, H, device="cpu")(x)
    with pytest.raises(AssertionError, match="was asked for"):
        layer(x)


def test_what_fails_on_the_gpu_is_the_cpus_with_one_warning(monkeypatch, gpu, layer, x):
    times = inject(monkeypatch, cpu=2.0, cuda=RuntimeError("the GPU has fallen off the bus"))
    with pytest.warns(RuntimeWarning, match="as the GPU failed: RuntimeError: the GPU has fallen"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
    assert len(times.asked) == 2
    assert gpu.runs == 0
    assert fastrnn.explain(layer, x).reason == "such a call failed on the GPU"


def test_a_call_beside_one_that_measures_does_not_wait(monkeypatch, gpu, layer, x):
    inside, done = threading.Event(), threading.Event()

    def measure(owner, where, *sizes):
        inside.set()
        assert done.wait(60)
        return {"cpu": 2.0, "cuda": 1.0}[where]

    monkeypatch.setattr(auto, "measure", measure)
    thread = threading.Thread(target=layer, args=(x,))
    thread.start()
    assert inside.wait(60)
    layer(x)
    assert gpu.runs == 0
    done.set()
    thread.join()
    layer(x)
    assert gpu.runs == 2


def test_what_is_measured_is_a_call_of_that_device(monkeypatch, gpu, x):
    for layer in (
        make("LSTM", I, H, num_layers=2, bidirectional=True, batch_first=True, dropout=0.5),
        fastrnn.GRUCell(I, H),
    ):
        before = gpu.runs
        assert auto.measure(layer, "cpu", 3, 2, True) > 0
        assert gpu.runs == before
        assert auto.measure(layer, "cuda", 3, 2, False) > 0
        assert gpu.runs >= before + 2 + auto.CALLS


def test_weights_of_the_gpu_are_made_when_first_used_and_new_after_an_update(
    monkeypatch, gpu, layer, x
):
    inject(monkeypatch, cpu=2.0, cuda=1.0)
    assert not layer._version.others
    old, _, tape = layer.forward(x)
    (weights,) = layer._version.others[gpu, "float32"]
    layer(x)
    assert layer._version.others[gpu, "float32"][0] is weights, "made again"
    layer.update({"bias_ih_l0": np.ones(4 * H)})
    assert not layer._version.others
    changed, _ = layer(x)
    fresh = fastrnn.LSTM(I, H, device="cpu")
    fresh.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(changed, fresh(x)[0])
    # The tape keeps the weights it began with.
    first = make("LSTM", I, H, device="cpu")
    np.testing.assert_array_equal(first(x)[0], old)
    mine = layer.backward(tape, old)
    _, _, its = first.forward(x)
    for name, value in first.backward(its, old).parameters.items():
        np.testing.assert_array_equal(mine.parameters[name], value, err_msg=name)


@pytest.mark.parametrize("where", ["auto", "cuda"], ids=["chosen", "fixed"])
def test_tf32_is_for_products_of_float32_on_the_gpu_while_it_is_allowed(monkeypatch, gpu, x, where):
    times = inject(monkeypatch, cpu=2.0, cuda=1.0)
    with_products, plain = [], cpu.Weights

    def make_weights(*arguments, **others):
        *weights, compute, units = arguments
        with_products.append(compute)
        return plain(*weights, units=units, **others)

    monkeypatch.setattr(gpu, "Weights", make_weights)
    assert not fastrnn.tf32_allowed()
    layer, wide = (make("LSTM", I, H, dtype=t, device=where) for t in ("float32", "float64"))
    layer(x)
    with device.tf32(True):
        assert fastrnn.tf32_allowed()
        layer(x)
        wide(x.astype(np.float64))
    assert with_products.count("tf32") == 1
    assert "float64" in with_products
    made = len(with_products)
    layer(x)
    with device.tf32(True):
        layer(x)
    assert len(with_products) == made, "made again"
    if where == "auto":
        assert len(times.asked) == 6, "a class of its own"
    with pytest.raises(TypeError, match="allowed is 1, wanted True or False"):
        fastrnn.allow_tf32(1)


@pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy])
def test_copies_choose_for_themselves(monkeypatch, gpu, layer, x, again):
    inject(monkeypatch, cpu=2.0, cuda=1.0)
    y, _ = layer(x)
    other = again(layer)
    assert other.device == "auto"
    assert not other._version.others
    np.testing.assert_array_equal(other(x)[0], y)
    assert gpu.runs == 2


def test_moving_a_layer_leaves_tapes_usable(monkeypatch, gpu, layer, x):
    inject(monkeypatch, cpu=2.0, cuda=1.0)
    p = problem(layer, T, B)
    wanted = run(make("LSTM", I, H, device="cpu"), p)
    for first, second in (("auto", "cpu"), ("cpu", "cuda"), ("cuda", "auto")):
        layer.to(first)
        y, _, tape = layer.forward(p.x, p.state)
        assert tape.device == ("cpu" if first == "cpu" else "cuda")
        layer.to(second)
        before = gpu.runs
        gradients = layer.backward(tape, p.dy, p.dstate)
        assert (gpu.runs > before) == (tape.device == "cuda")
        np.testing.assert_array_equal(y, wanted.y)
        np.testing.assert_array_equal(gradients.x, wanted.dx)


def test_moving_a_layer_while_others_call_it(gpu, layer):
    small = np.random.default_rng(0).standard_normal((4, 2, I), np.float32)
    wanted, _ = layer(small)
    stop, wrong = threading.Event(), []

    def call():
        try:
            while not stop.is_set():
                y, _, tape = layer.forward(small)
                layer.backward(tape, y)
                if not np.array_equal(y, wanted):
                    wrong.append("other numbers")
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while gpu.runs < 100 and time.monotonic() < end:
        for where in ("cuda", "cpu", "auto"):
            layer.to(where)
            time.sleep(1e-4)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert gpu.runs >= 100


def test_a_failed_launch_leaves_the_layer_usable_on_the_cpu(gpu, layer):
    p = problem(layer, 3, 2)
    wanted = run(layer, p)
    layer.to("cuda")

    def fail(jobs, work):
        raise RuntimeError("forward_kernel was not launched, H=64: CUDA_ERROR_ECC_UNCORRECTABLE")

    gpu.run = fail
    with pytest.raises(RuntimeError, match=r"forward_kernel was not launched, H=64"):
        layer(p.x)
    found = run(layer.to("cpu"), p)
    np.testing.assert_array_equal(found.y, wanted.y)
    np.testing.assert_array_equal(found.dx, wanted.dx)


def test_no_memory_on_the_gpu_is_told_with_what_there_is(gpu, layer, x):
    layer.to("cuda")

    def fail(*arguments, **options):
        raise MemoryError("Out of memory allocating 512 bytes")

    gpu.empty = fail
    with pytest.raises(MemoryError, match=rf"this LSTM, T={T}, B={B}: Out of.*512.*1,000 of the"):
        layer(x)
    cpu_layer = make("LSTM", I, H, device="cpu")
    cpu_layer(x)


def test_room_is_asked_for_before_anything_runs(gpu, layer, x):
    layer.to("cuda")

    def refuse(*what):
        raise MemoryError(what[-1]())

    plain = gpu.check_forward
    gpu.check_forward = gpu.check_backward = refuse
    with pytest.raises(MemoryError, match=f"^this LSTM, T={T}, B={B}$"):
        layer.forward(x)
    gpu.check_forward = plain
    y, _, tape = layer.forward(x)
    runs = gpu.runs
    with pytest.raises(MemoryError, match=f"^backward of this LSTM, T={T}, B={B}$"):
        layer.backward(tape, y)
    assert gpu.runs == runs == 1
