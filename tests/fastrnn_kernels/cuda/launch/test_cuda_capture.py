"""Recordings and products as they are on a GPU, with stand-ins for CuPy, the driver and cuBLAS."""

from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

import compilers

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="Numba's simulator records by itself"),
]

if not config.ENABLE_CUDASIM:
    compilers.need("numba_cuda")
    from cuda.bindings import driver as real

    from cuda_gpu import Captures, stand_ins


@pytest.fixture
def gpu(monkeypatch):
    with stand_ins(monkeypatch) as found:
        yield found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 5), (7, 4, 2), (0, 3, 2)])
def test_products(gpu, sizes, transposed, dtype):
    m, n, k = sizes
    rng = np.random.default_rng(0)
    a = gpu.cupy.asarray(rng.standard_normal((m, k)).astype(dtype))
    b = gpu.cupy.asarray(rng.standard_normal((n, k) if transposed else (k, n)).astype(dtype))
    out = gpu.cupy.full((m, n), np.nan, dtype)
    gpu.blas.product(a, b, out, transposed)
    # Sums of at most five products, in any order.
    wanted = a @ (b.T if transposed else b)
    np.testing.assert_allclose(out.get(), wanted.get(), rtol=1e-5, atol=1e-6)
    assert gpu.library.streams == ([11] if m else [])


@pytest.mark.parametrize("compute", ["tf32", "bfloat16", "float16"])
def test_products_by_tensor_cores(gpu, compute):
    a, b = gpu.cupy.full((2, 3), 2, "float32"), gpu.cupy.full((3, 4), 3, "float32")
    out = gpu.cupy.empty((2, 4), "float32")
    gpu.blas.product(a, b, out, compute=compute)
    np.testing.assert_array_equal(out.get(), np.full((2, 4), 18))
    assert gpu.library.computed_in == [compute]


@pytest.mark.parametrize("k", [0, 1, 3])
def test_products_of_columns_and_of_transposed_matrices(gpu, k):
    rng = np.random.default_rng(1)
    wide, b = rng.standard_normal((k, 7)), rng.standard_normal((k, 2))
    for columns in (slice(2, 5), slice(1)):
        out = gpu.cupy.full((wide[:, columns].shape[1], 2), np.nan, "float64")
        gpu.blas.product(gpu.cupy.asarray(wide)[:, columns].T, gpu.cupy.asarray(b), out)
        np.testing.assert_allclose(out.get(), wide[:, columns].T @ b, rtol=1e-13)


def test_a_matrix_without_a_contiguous_axis_is_refused(gpu):
    a, b, out = (gpu.cupy.zeros(shape) for shape in ((4, 9), (5, 3), (2, 3)))
    with pytest.raises(ValueError, match=r"a matrix of strides .* reached cuBLAS"):
        gpu.blas.product(a[::2, ::2], b, out)


def test_a_failed_product_says_its_sizes(gpu):
    gpu.library.error = 3
    a, b, out = (gpu.cupy.zeros(shape) for shape in ((2, 3), (3, 4), (2, 4)))
    with pytest.raises(RuntimeError, match="cuBLAS cannot be used on this GPU: its error 3"):
        gpu.blas.product(a, b, out)


CAPTURE = [
    ("cuStreamCreate", 1),
    ("cuStreamBeginCapture", 99, 2),
    ("cuStreamEndCapture", 99),
    ("cuGraphInstantiate", 7, 0),
    ("cuGraphDestroy", 7),
    ("cuStreamDestroy", 99),
]


def test_the_second_run_is_captured_and_replayed(gpu, monkeypatch):
    assert real.CUstream_flags.CU_STREAM_NON_BLOCKING == 1
    assert real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED == 2
    captures, streams = Captures(monkeypatch), []
    graph = gpu.graph.Graph(lambda: streams.append(gpu.launch.stream()), "a test")
    graph.run()
    assert (streams, captures.told, graph.recorded) == ([11], [], False)
    graph.run()
    graph.run()
    assert streams == [11, 99]
    assert gpu.launch.stream() == 11
    assert graph.recorded
    assert captures.told == [*CAPTURE, ("cuGraphLaunch", 8, 11), ("cuGraphLaunch", 8, 11)]
    captures.told.clear()
    del graph
    assert captures.told == [("cuGraphExecDestroy", 8)]


def test_another_stream_has_a_recording_of_its_own(gpu, monkeypatch):
    """What products use beside belongs to the stream."""
    captures, streams = Captures(monkeypatch), []
    graph = gpu.graph.Graph(lambda: streams.append(gpu.blas.workspace().data.ptr), "a test")
    graph.run()
    graph.record()
    graph.run()
    gpu.cupy.now.ptr = 12
    graph.run()
    launched = ("cuGraphLaunch", 8, 11), ("cuGraphLaunch", 8, 12)
    destroyed = ("cuGraphExecDestroy", 8)
    assert captures.told == [*CAPTURE, launched[0], destroyed, *CAPTURE, launched[1]]
    assert streams[0] == streams[1] != streams[2]


def test_what_was_recorded_before_the_first_run_belongs_to_its_stream_too(gpu, monkeypatch):
    captures = Captures(monkeypatch)
    graph = gpu.graph.Graph(lambda: None, "a test")
    graph.record()
    gpu.cupy.now.ptr = 12
    graph.run()
    destroyed = ("cuGraphExecDestroy", 8)
    assert captures.told == [*CAPTURE, destroyed, *CAPTURE, ("cuGraphLaunch", 8, 12)]


@pytest.mark.parametrize(
    "refuse", ["cuStreamCreate", "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"]
)
def test_where_capture_is_refused_calls_are_made_one_by_one(gpu, monkeypatch, refuse):
    captures, streams = Captures(monkeypatch), []
    captures.refuse = refuse
    graph = gpu.graph.Graph(lambda: streams.append(gpu.launch.stream()), "a test")
    for k in range(6):
        assert (graph.refusal is None) == (k < 4)
        graph.run()
    assert [stream for stream in streams if stream == 11] == [11] * 6
    assert "NOT_SUPPORTED" in str(graph.refusal)
    assert not graph.recorded
    told = [name for name, *_ in captures.told]
    assert told.count("cuStreamCreate") == 3
    assert told.count("cuStreamDestroy") == 3 * (refuse != "cuStreamCreate")
    assert told.count("cuGraphDestroy") == 3 * (refuse == "cuGraphInstantiate")


def test_a_capture_that_failed_once_is_tried_again(gpu, monkeypatch):
    """Another thread that waits for the device has one fail."""
    captures = Captures(monkeypatch)
    graph = gpu.graph.Graph(lambda: None, "a test")
    graph.run()
    for stream in (11, 12, 11):
        gpu.cupy.now.ptr = stream
        captures.refuse = "cuStreamEndCapture"
        for _ in range(2):
            graph.run()
            assert not graph.recorded
        captures.refuse = None
        graph.run()
        assert graph.recorded
        assert captures.told[-1] == ("cuGraphLaunch", 8, stream)
    # One that failed elsewhere is not the end of it here.
    gpu.cupy.now.ptr, captures.refuse = 12, "cuStreamEndCapture"
    graph.run()
    gpu.cupy.now.ptr, captures.refuse = 11, None
    graph.run()
    assert graph.recorded


def test_a_replay_that_fails_tells_its_name(gpu, monkeypatch):
    captures = Captures(monkeypatch)
    graph = gpu.graph.Graph(lambda: None, "a test")
    graph.run()
    captures.refuse = "cuGraphLaunch"
    with pytest.raises(RuntimeError, match="the CUDA graph of a test failed: CUDA_ERROR_NOT_SUP"):
        graph.run()


def test_a_call_that_fails_ends_the_capture(gpu, monkeypatch):
    captures, runs = Captures(monkeypatch), []

    def calls():
        runs.append(gpu.launch.stream())
        if runs[-1] == 99:
            raise RuntimeError("no")

    graph = gpu.graph.Graph(calls, "a test")
    graph.run()
    graph.run()
    assert runs == [11, 99, 11]
    assert ("cuStreamEndCapture", 99) in captures.told
    assert gpu.launch.stream() == 11


def test_products_and_launches_of_a_recording_go_to_its_stream(gpu, monkeypatch):
    from fastrnn_kernels.cuda.launch.kernel import Kernel

    Captures(monkeypatch)

    def scale(y, B):
        pass

    kernel = Kernel(scale, np.dtype(np.float32), "vi")
    a = gpu.cupy.zeros((2, 2))

    def calls():
        gpu.blas.product(a, a, a)
        gpu.launch.launch(kernel, 300, a, 3)

    graph = gpu.graph.Graph(calls, "a test")
    graph.run()
    graph.run()
    assert gpu.library.streams == [11, 99]
    assert [found.stream for found in gpu.driver.launches] == [11, 99]
    assert {found.values([8, 8])[0] for found in gpu.driver.launches} == {a.data.ptr}
    assert {(found.blocks, found.threads) for found in gpu.driver.launches} == {(2, 256)}
    gpu.blas.product(a, a, a)
    gpu.blas.product(a, a, a)
    assert gpu.library.streams == [11, 99, 11]
    assert gpu.library.handles == 1


def test_a_table_is_filled_by_one_launch(gpu):
    from fastrnn_kernels.cuda.stepwise import table

    x = gpu.cupy.zeros(3)
    made = table.Table()
    made.fill({0: 5, 2: x, 3: None})
    (found,) = gpu.driver.launches
    values = found.values([8] * 21)
    assert values == [made.words.data.ptr, 5, 0, x.data.ptr] + [0] * 17


def test_a_pass_is_a_product_two_launches_and_as_many_replays(gpu, monkeypatch):
    """Arguments of launches lie in arrays of the recording; those of a call in its table."""
    from fastrnn_kernels.cells.lstm import LSTM
    from fastrnn_kernels.cuda.data import passes
    from fastrnn_kernels.cuda.data.weights import Weights
    from fastrnn_kernels.cuda.stepwise import forward as ahead
    from fastrnn_kernels.cuda.stepwise import path as stepwise
    from fastrnn_kernels.rows import Rows

    captures = Captures(monkeypatch)
    monkeypatch.setattr(stepwise, "MOST_STEPS", 2)
    T, B, I, H = 4, 2, 3, 5
    rng = np.random.default_rng(0)
    weights = Weights(LSTM, *(rng.standard_normal((4 * H, width)) for width in (I, H)))

    def run():
        made = gpu.cupy.zeros
        given = passes.ForwardArguments(
            weights, made((T, B, I)), made((B, H)), made((1, B, H)), made((B, H)),
            made((1, B, H)), Rows.whole(T, B), made((T, B, H)), 0, False, None, None,
        )  # fmt: skip
        stepwise.forward(given)
        return given

    run()
    told = [gpu.names[found.function] for found in gpu.driver.launches]
    # The first block warms up, the second is recorded on the private stream.
    block = ["gates", "gates", "advance"]
    assert told == ["fill", "begin", *block, *block]
    assert [found.stream for found in gpu.driver.launches] == [11] * 5 + [99] * 3
    assert [name for name, *_ in captures.told][-1] == "cuGraphLaunch"

    gpu.driver.launches.clear()
    captures.told.clear()
    given = run()
    fill, begin = gpu.driver.launches
    assert captures.told == [("cuGraphLaunch", 8, 11)] * 2
    words = fill.values([8] * 21)[1:]
    assert words[ahead.STEPS] == T
    assert words[ahead.FIRST] == words[ahead.RESET] == words[ahead.SAVED] == 0
    wanted = {
        ahead.Y_OUT: given.y, ahead.START_H: given.start_h, ahead.START_REST: given.start_rest,
        ahead.FINAL_H: given.final_h, ahead.FINAL_REST: given.final_rest,
    }  # fmt: skip
    assert {place: words[place] for place in wanted} == {
        place: array.data.ptr for place, array in wanted.items()
    }
    (recorded,) = weights.recent._kept.values()
    h, masked = recorded.h.data.ptr, 0
    assert begin.values([8] * 6) == [
        recorded.table.words.data.ptr, h, masked, recorded.rest.data.ptr, B * H, B * H
    ]  # fmt: skip


@pytest.mark.parametrize("error", [0, 3])
def test_where_cublas_does_not_work_products_are_cupys(gpu, monkeypatch, error):
    """And nothing is recorded, as CuPy would refuse."""
    from cuda import pathfinder

    def load(name):
        assert name == "cublas"
        if not error:
            raise pathfinder.DynamicLibNotFoundError(name)
        return SimpleNamespace(abs_path="here")

    gpu.library.error = error
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", load)
    gpu.restore_cublas()
    a, b = gpu.cupy.full((2, 3), 2.0), gpu.cupy.full((4, 3), 3.0)
    out = gpu.cupy.zeros((2, 4))
    graph = gpu.graph.Graph(lambda: gpu.blas.product(a, b, out, transposed=True), "a test")
    with monkeypatch.context() as patch:
        patch.setattr(gpu.blas.ctypes, "CDLL", lambda path: gpu.library)
        for _ in range(2):
            graph.run()
    np.testing.assert_array_equal(out.get(), np.full((2, 4), 18.0))
    assert "cuBLAS was not found" in str(graph.refusal)
    assert not gpu.library.streams


def test_what_cublas_refuses_says_its_sizes(gpu, monkeypatch):
    monkeypatch.setattr(gpu.library, "cublasSetStream_v2", lambda *given: 13)
    a, b, out = (gpu.cupy.zeros(shape) for shape in ((2, 3), (3, 4), (2, 4)))
    with pytest.raises(RuntimeError, match=r"\(2, 3\) by \(3, 4\), float64: cuBLAS's error 13"):
        gpu.blas.product(a, b, out)
