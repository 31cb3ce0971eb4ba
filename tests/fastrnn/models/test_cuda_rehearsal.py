"""Layers and streams on stand-ins for a GPU: what arrays go where. Values are the simulator's part.

Kernels do not run here. But arrays on the GPU are of a kind of their own, which NumPy's do not mix
with, as no test on the simulator shows.
"""

import gc

import numpy as np
import pytest
from numba import config

import compilers
import fastrnn
from cases import CELLS, states
from fastrnn import device

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="the simulator's arrays are NumPy's"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of numbers that no kernel has written
]

if not config.ENABLE_CUDASIM:
    compilers.need("numba_cuda")
    from cuda_gpu import Captures, stand_ins

T, B, I, H = 4, 3, 2, 5
LENGTHS = np.array([2, 0, 4])


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(device, "_cuda", lambda: device.Device("cuda", True))
    with stand_ins(monkeypatch) as found:
        from fastrnn_kernels.cuda import choice
        from fastrnn_kernels.cuda.resident import division

        monkeypatch.setattr(choice, "gpu", lambda: division.Gpu(2, 0))  # where no R fits
        found.captures = Captures(monkeypatch)
        yield found


def layer_of(cell="LSTM", **options):
    kind, given = CELLS[cell]
    return getattr(fastrnn, kind)(I, H, device="cuda", seed=0, **given, **options)


def array(gpu, *shape, on_gpu=True):
    made = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return gpu.cupy.asarray(made) if on_gpu else made


def kinds(found):
    return {type(one) for one in found}


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_results_are_where_the_input_is(gpu, cell, on_gpu, lengths):
    layer = layer_of(cell, num_layers=2, bidirectional=True)
    kind = gpu.cupy.ndarray if on_gpu else np.ndarray
    x = array(gpu, T, B, I, on_gpu=on_gpu)
    for _ in range(3):  # directly, recorded, replayed
        y, state, tape = layer.forward(x, lengths=lengths)
        gradients = layer.backward(tape, array(gpu, T, B, 2 * H, on_gpu=on_gpu))
        assert kinds([y, *states(state), gradients.x, *states(gradients.state)]) == {kind}
        assert kinds(gradients.parameters.values()) == {kind}
    assert y.shape == (T, B, 2 * H)
    assert (
        gradients.parameters["weight_hh_l1_reverse"].shape
        == layer.parameters["weight_hh_l1_reverse"].shape
    )
    assert {name for name, *_ in gpu.captures.told} >= {"cuGraphLaunch"}


def test_a_projected_layer(gpu):
    layer = layer_of(proj_size=2)
    y, _, tape = layer.forward(array(gpu, T, B, I))
    gradients = layer.backward(tape, y)
    assert kinds(gradients.parameters.values()) == {gpu.cupy.ndarray}
    assert {"keep", "hidden"} <= set(gpu.names.values())


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_stream(gpu, on_gpu):
    model = fastrnn.Sequential(
        layer_of("GRU-reset-before", num_layers=2), fastrnn.Linear(H, 2, device="cuda")
    )
    kind = gpu.cupy.ndarray if on_gpu else np.ndarray
    stream = model.stream(B)
    stream.warmup()
    x = array(gpu, B, I, on_gpu=on_gpu)
    gpu.captures.told.clear()
    gpu.driver.launches.clear()
    y, again = stream.step(x), stream.step(x)
    assert gpu.captures.told == [("cuGraphLaunch", 8, 11)] * 2
    assert not gpu.driver.launches
    assert (type(y), y.shape) == (kind, (B, 2))
    if on_gpu:
        assert y.data.ptr == again.data.ptr
    out = array(gpu, B, 2, on_gpu=on_gpu)
    assert stream.step(x, out=out) is out
    other = array(gpu, B, 2, on_gpu=not on_gpu)
    with pytest.raises(TypeError, match="as the input is"):
        stream.step(x, out=other)
    Y = stream.block(array(gpu, T, B, I, on_gpu=on_gpu))
    assert (type(Y), Y.shape) == (kind, (T, B, 2))
    whole = array(gpu, T, B, 2, on_gpu=on_gpu)
    assert stream.block(array(gpu, T, B, I, on_gpu=on_gpu), out=whole) is whole


def test_a_warm_stream_steps_on_another_cuda_stream(gpu):
    """With a recording of that one's; old arrays are freed when it is done with them."""
    layer = layer_of()
    stream = layer.stream(B)
    stream.warmup()
    gpu.captures.told.clear()
    gpu.cupy.now.ptr = 12
    x = array(gpu, B, I)
    stream.step(x)
    names = [name for name, *_ in gpu.captures.told]
    assert names.count("cuStreamBeginCapture") == 1
    assert gpu.captures.told[-1] == ("cuGraphLaunch", 8, 12)
    gpu.cupy.told.clear()
    gpu.cupy.now.ptr = 13
    stream.refresh()  # copies the state, on this stream
    gc.collect()
    assert gpu.cupy.told == [("record", 13), ("wait", 12), ("wait", 13)]


def test_a_stream_in_anothers_capture_is_refused(gpu):
    stream = layer_of().stream(B)
    gpu.driver.captured[11] = 1
    before = stream._steps.x.get()
    with pytest.raises(RuntimeError, match="is being captured"):
        stream.step(array(gpu, B, I))
    np.testing.assert_array_equal(stream._steps.x.get(), before)
    gpu.driver.captured.clear()
    stream.step(array(gpu, B, I))


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_the_state_of_a_stream(gpu, cell):
    layer = layer_of(cell, num_layers=2)
    stream = layer.stream(B)
    given = [array(gpu, 2, B, H, on_gpu=on_gpu) for on_gpu in (True, False)]
    stream.state = tuple(given) if cell == "LSTM" else given[1]
    for one in states(stream.state):
        assert type(one) is gpu.cupy.ndarray
        np.testing.assert_array_equal(one.get(), given[1])
    snapshot = fastrnn.Snapshot.from_bytes(stream.snapshot().to_bytes())
    for rows in (1, [0, 2], np.array([2]), array(gpu, 1).astype(np.int64), []):
        stream.reset(rows)
    for one in states(stream.state):
        assert not one.get().any()
    stream.restore(snapshot)
    stream.refresh()
    for one in states(stream.state):
        np.testing.assert_array_equal(one.get(), given[1])
    stream.state = None
    assert stream.add_stream() == 0


def test_the_state_of_a_cells_stream(gpu):
    cell = fastrnn.LSTMCell(I, H, device="cuda", seed=0)
    stream = cell.stream(B)
    given = array(gpu, B, H), array(gpu, B, H, on_gpu=False)
    stream.state = given
    for one in stream.state:
        assert type(one) is gpu.cupy.ndarray
        np.testing.assert_array_equal(one.get(), given[1])
    h, _ = cell(array(gpu, B, I), stream.state)
    assert type(h) is gpu.cupy.ndarray


def test_strided_inputs_of_a_stream_are_taken(gpu):
    stream = layer_of().stream(B)
    wide = array(gpu, B, 2 * I)
    stream.step(wide[:, ::2])
    np.testing.assert_array_equal(stream._steps.x.get(), wide[:, ::2].get())
    stream.step(wide.get()[:, 1::2])
    np.testing.assert_array_equal(stream._steps.x.get(), wide[:, 1::2].get())


def test_what_is_exported_runs_on_the_cpu(gpu, tmp_path):
    from fastrnn.export import export

    with pytest.raises(RuntimeError, match="this LSTM is on the GPU, what is exported runs on"):
        export(layer_of(), tmp_path)


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_linear_layer(gpu, on_gpu, activation):
    layer = fastrnn.Linear(I, 2, activation=activation, device="cuda", seed=0)
    twin = fastrnn.Linear(I, 2, activation=activation, device="cpu", seed=0)
    x, dy = (array(gpu, T, width, on_gpu=on_gpu) for width in (I, 2))
    kind = gpu.cupy.ndarray if on_gpu else np.ndarray
    y, tape = layer.forward(x)
    gradients = layer.backward(tape, dy)
    assert kinds([y, gradients.x, *gradients.parameters.values()]) == {kind}
    # Both are NumPy's products here, of the same numbers.
    wanted, own = twin.forward(array(gpu, T, I, on_gpu=False))
    its = twin.backward(own, array(gpu, T, 2, on_gpu=False))
    for mine, theirs in (
        (y, wanted), (layer(x), wanted), (gradients.x, its.x),
        (gradients.parameters["weight"], its.parameters["weight"]),
        (gradients.parameters["bias"], its.parameters["bias"]),
    ):  # fmt: skip
        np.testing.assert_allclose(mine.get() if on_gpu else mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_linear_layer_on_the_cpu_takes_none_of_the_gpus_arrays(gpu):
    layer = fastrnn.Linear(I, 2, device="cpu", seed=0)
    with pytest.raises(TypeError, match="input lies on a GPU, and this Linear runs on the CPU"):
        layer(array(gpu, T, I))
    _, tape = layer.forward(array(gpu, T, I, on_gpu=False))
    with pytest.raises(TypeError, match="dy lies on a GPU"):
        layer.backward(tape, array(gpu, T, 2))
