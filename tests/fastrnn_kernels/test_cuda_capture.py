"""Recordings and products as they are on a GPU, with stand-ins for CuPy, the driver and cuBLAS."""

import ctypes
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

pytestmark = pytest.mark.skipif(
    bool(config.ENABLE_CUDASIM), reason="Numba's simulator records by itself"
)

if not config.ENABLE_CUDASIM:
    pytest.importorskip("numba_cuda")
    from cuda.bindings import driver as real

    from cuda_cupy import cupy
    from cuda_driver import Driver


class Cublas:
    """The library's functions, computed by NumPy on the addresses that they are given."""

    def __init__(self):
        self.handles, self.streams, self.error = 0, [], 0
        # Functions of a library have attributes, which methods have not.
        for name in ("Create", "SetStream", "SetWorkspace"):
            setattr(self, f"cublas{name}_v2", partial(getattr(self, name)))
        for name, number in (("S", ctypes.c_float), ("D", ctypes.c_double)):
            setattr(self, f"cublas{name}gemm_v2", partial(self.gemm, number))

    def Create(self, handle):  # noqa: N802
        self.handles += 1
        handle._obj.value = self.handles
        return self.error

    def SetStream(self, handle, stream):  # noqa: N802
        self.streams.append(stream)
        self.workspace = None
        return 0

    def SetWorkspace(self, handle, address, size):  # noqa: N802
        self.workspace = address, size
        return 0

    def gemm(self, number, handle, op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        def matrix(address, rows, columns, leading):
            assert leading >= rows
            held = (number * (leading * columns)).from_address(address)
            return np.ctypeslib.as_array(held).reshape(columns, leading)[:, :rows].T

        assert self.workspace
        A = matrix(a, k, m, lda).T if op_a else matrix(a, m, k, lda)
        B = matrix(b, n, k, ldb).T if op_b else matrix(b, k, n, ldb)
        C = matrix(c, m, n, ldc)
        product = alpha.contents.value * (A @ B)
        C[:] = product + beta.contents.value * C if beta.contents.value else product
        return 0


@pytest.fixture
def gpu(monkeypatch):
    """The modules, on stand-ins."""
    library = Cublas()
    with cupy(stream=11) as module, Driver() as driver:
        from fastrnn_kernels.cuda import graph, launch, products

        with monkeypatch.context() as patch:
            patch.setattr(products.ctypes, "CDLL", lambda path: library)
            found = products.Cublas("cublas")
        monkeypatch.setattr(products, "cublas", lambda: found)
        monkeypatch.setattr(graph, "cublas", lambda: found)
        yield SimpleNamespace(
            cupy=module, driver=driver, graph=graph, launch=launch, products=products,
            library=library,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 5), (7, 4, 2), (0, 3, 2)])
def test_products(gpu, sizes, transposed, dtype):
    m, n, k = sizes
    rng = np.random.default_rng(0)
    a = gpu.cupy.asarray(rng.standard_normal((m, k)).astype(dtype))
    b = gpu.cupy.asarray(rng.standard_normal((n, k) if transposed else (k, n)).astype(dtype))
    out = gpu.cupy.full((m, n), np.nan, dtype)
    gpu.products.product(a, b, out, transposed)
    # Sums of at most five products, in any order.
    np.testing.assert_allclose(out, a @ (b.T if transposed else b), rtol=1e-5, atol=1e-6)
    assert gpu.library.streams == ([11] if m else [])


def test_a_failed_product_says_its_sizes(gpu):
    gpu.library.error = 3
    a, b, out = (gpu.cupy.zeros(shape) for shape in ((2, 3), (3, 4), (2, 4)))
    with pytest.raises(RuntimeError, match="cuBLAS cannot be used on this GPU: its error 3"):
        gpu.products.product(a, b, out)


class Captures:
    """The driver's functions for graphs, told in order."""

    def __init__(self, monkeypatch):
        self.told, self.refuse = [], None
        for name in (
            "cuStreamCreate", "cuStreamBeginCapture", "cuStreamEndCapture", "cuStreamDestroy",
            "cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy",
        ):  # fmt: skip
            monkeypatch.setattr(real, name, partial(self.tell, name))

    def tell(self, name, *given):
        self.told.append((name, *map(int, given[:2])))
        if name == self.refuse:
            return (real.CUresult.CUDA_ERROR_NOT_SUPPORTED, None)
        values = {"cuStreamCreate": 99, "cuStreamEndCapture": 7, "cuGraphInstantiate": 8}
        return (real.CUresult.CUDA_SUCCESS, *([values[name]] if name in values else []))


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
    graph = gpu.graph.Graph(lambda: streams.append(gpu.products.workspace().ctypes.data), "a test")
    graph.run()
    graph.record()
    graph.run()
    gpu.cupy.now.ptr = 12
    graph.run()
    launched = ("cuGraphLaunch", 8, 11), ("cuGraphLaunch", 8, 12)
    destroyed = ("cuGraphExecDestroy", 8)
    assert captures.told == [*CAPTURE, launched[0], destroyed, *CAPTURE, launched[1]]
    assert streams[0] == streams[1] != streams[2]


@pytest.mark.parametrize(
    "refuse", ["cuStreamCreate", "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"]
)
def test_where_capture_is_refused_calls_are_made_one_by_one(gpu, monkeypatch, refuse):
    captures, streams = Captures(monkeypatch), []
    captures.refuse = refuse
    graph = gpu.graph.Graph(lambda: streams.append(gpu.launch.stream()), "a test")
    for _ in range(3):
        graph.run()
    assert [stream for stream in streams if stream == 11] == [11] * 3
    assert "NOT_SUPPORTED" in str(graph.refusal)
    assert not graph.recorded
    told = [name for name, *_ in captures.told]
    assert told.count("cuStreamCreate") == 1
    assert told.count("cuStreamDestroy") == (refuse != "cuStreamCreate")
    assert told.count("cuGraphDestroy") == (refuse == "cuGraphInstantiate")


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
    from fastrnn_kernels.cuda.kernel import Kernel

    Captures(monkeypatch)

    def scale(y, B):
        pass

    kernel = Kernel(scale, np.dtype(np.float32), "vi")
    kernel.__dict__["compiled"] = gpu.driver.loaded(kernel)
    a = gpu.cupy.zeros((2, 2))

    def calls():
        gpu.products.product(a, a, a)
        gpu.launch.launch(kernel, 300, a, 3)

    graph = gpu.graph.Graph(calls, "a test")
    graph.run()
    graph.run()
    assert gpu.library.streams == [11, 99]
    assert [found.stream for found in gpu.driver.launches] == [11, 99]
    assert {found.values([8, 8])[0] for found in gpu.driver.launches} == {a.ctypes.data}
    assert {(found.blocks, found.threads) for found in gpu.driver.launches} == {(2, 256)}
    gpu.products.product(a, a, a)
    gpu.products.product(a, a, a)
    assert gpu.library.streams == [11, 99, 11]
    assert gpu.library.handles == 1


def test_a_table_is_filled_by_one_launch(gpu, monkeypatch):
    from fastrnn_kernels.cuda import table

    kernel = table.fill_kernel()
    monkeypatch.setitem(kernel.__dict__, "compiled", gpu.driver.loaded(kernel))
    x = gpu.cupy.zeros(3)
    made = table.Table()
    made.fill({0: 5, 2: x, 3: None})
    (found,) = gpu.driver.launches
    values = found.values([8] * 17)
    assert values == [made.words.ctypes.data, 5, 0, x.ctypes.data] + [0] * 13


def test_a_pass_is_a_product_two_launches_and_a_replay_of_each_block(gpu, monkeypatch):
    """All arguments of all launches lie in arrays of the plan; those of a call in its table."""
    from fastrnn_kernels.cuda import passes, stepwise
    from fastrnn_kernels.cuda import stepwise_kernels as ahead
    from fastrnn_kernels.cuda.kernel import Kernel
    from fastrnn_kernels.cuda.weights import Weights
    from fastrnn_kernels.lstm import LSTM
    from fastrnn_kernels.rows import Rows

    captures, kernels = Captures(monkeypatch), {}

    def compiled(kernel):
        if kernel not in kernels:
            kernels[kernel] = gpu.driver.loaded(kernel)
        return kernels[kernel]

    monkeypatch.setattr(Kernel, "compiled", property(compiled))
    monkeypatch.setattr(stepwise, "BLOCK_STEPS", 2)
    T, B, I, H = 4, 2, 3, 5
    rng = np.random.default_rng(0)
    weights = Weights(LSTM, *(rng.standard_normal((4 * H, width)) for width in (I, H)))

    def run():
        made = gpu.cupy.zeros
        given = passes.Forward(
            weights, made((T, B, I)), made((B, H)), made((1, B, H)), made((B, H)),
            made((1, B, H)), Rows.whole(T, B), made((T, B, H)), 0, False, None, None,
        )  # fmt: skip
        stepwise.forward(given)
        return given

    run()
    names = {5 + k: kernel.name.rpartition(".")[2] for k, kernel in enumerate(kernels)}
    told = [names[found.function] for found in gpu.driver.launches]
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
    words = fill.values([8] * 17)[1:]
    assert words[ahead.STEPS] == T
    assert words[ahead.FIRST] == words[ahead.RESET] == words[ahead.SAVED] == 0
    wanted = {
        ahead.Y_OUT: given.y, ahead.START_H: given.start_h, ahead.START_REST: given.start_rest,
        ahead.FINAL_H: given.final_h, ahead.FINAL_REST: given.final_rest,
    }  # fmt: skip
    assert {place: words[place] for place in wanted} == {
        place: array.ctypes.data for place, array in wanted.items()
    }
    (plan,) = weights.plans._plans.values()
    assert begin.values([8] * 5) == [
        plan.table.words.ctypes.data, plan.h.ctypes.data, plan.rest.ctypes.data, B * H, B * H
    ]  # fmt: skip
