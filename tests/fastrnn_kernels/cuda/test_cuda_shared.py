"""What threads and CUDA streams share, with stand-ins for a GPU: made once, and freed late."""

import gc
import threading
import time

import numpy as np
import pytest
from numba import config

import compilers

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="Numba's simulator has no CUDA streams"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of numbers that no kernel has written
]

if not config.ENABLE_CUDASIM:
    compilers.need("numba_cuda")
    from cuda.bindings.driver import CUresult

    from cuda_gpu import Captures, stand_ins
    from fastrnn_kernels.cells.lstm import LSTM
    from fastrnn_kernels.rows import Rows

T, B, I, H = 4, 2, 3, 5


@pytest.fixture
def gpu(monkeypatch):
    with stand_ins(monkeypatch) as found:
        from fastrnn_kernels.cuda import choice
        from fastrnn_kernels.cuda.resident import division

        monkeypatch.setattr(choice, "gpu", lambda: division.Gpu(2, 0))  # where no R fits
        Captures(monkeypatch)
        yield found


def weights_of(compute=""):
    from fastrnn_kernels.cuda.data.weights import Weights

    rng = np.random.default_rng(0)
    values = [rng.standard_normal((4 * H, width)).astype(np.float32) for width in (I, H)]
    return Weights(LSTM, *values, compute=compute)


def run(gpu, weights):
    """Both passes on the current stream."""
    from fastrnn_kernels.cuda import sequence

    def made(*shape):
        return gpu.cupy.zeros(shape, "float32")

    forward = sequence.start_forward(
        weights, made(T, B, I), made(B, H), made(1, B, H), made(B, H), made(1, B, H),
        Rows.whole(T, B), made(T, B, H), 0, taping=True,
    )  # fmt: skip
    sequence.run([forward.job], 0.0)
    back = sequence.start_backward(forward.tape, made(T, B, H), 0, made(B, H), made(1, B, H))
    sequence.run([back.job], 0.0)
    back.finish()


def test_weights_are_freed_after_the_streams_that_read_them(gpu):
    weights = weights_of()
    run(gpu, weights)
    assert not gpu.cupy.told, "their own stream needs no event"
    gpu.cupy.now.ptr = 12
    run(gpu, weights)
    assert gpu.cupy.told == [("record", 12)] * 3
    gpu.cupy.now.ptr = 13
    weights.note()
    gpu.cupy.told.clear()
    del weights
    gc.collect()
    assert gpu.cupy.told == [("wait", 12), ("wait", 13)]


def test_weights_wait_for_a_pass_that_failed(gpu):
    weights = weights_of()
    run(gpu, weights)
    gpu.cupy.now.ptr = 12
    gpu.driver.answers = [CUresult.CUDA_ERROR_ILLEGAL_ADDRESS]
    with pytest.raises(RuntimeError, match="was not launched"):
        run(gpu, weights)
    assert gpu.cupy.told == [("record", 12)]


def test_events_that_have_passed_are_not_kept(gpu):
    weights = weights_of()
    assert weights.matrices
    events = weights.__dict__["readers"]._events
    for stream in range(12, 30):
        gpu.cupy.now.ptr = stream
        weights.note()
        for event in events.values():
            event.done = True
    assert len(events) == 1


def test_what_is_small_is_each_streams_own(gpu):
    """So that it returns to the stream that reads it."""
    from fastrnn_kernels.cuda.data import passes
    from fastrnn_kernels.cuda.resident import division, fragments

    weights = weights_of()
    here = division.Gpu(2, 48 << 10)
    divided = division.one_block(LSTM, H, B, 4, here, False)

    def made():
        return (
            passes.lengths_of(Rows.whole(T, B)).data.ptr,
            fragments.fragments_of(weights, divided).data.ptr,
        )

    first = made()
    assert made() == first
    gpu.cupy.now.ptr = 12
    assert not set(made()) & set(first)
    gpu.cupy.now.ptr = 11
    assert made() == first


@pytest.mark.parametrize("name", ["recent", "matrices"])
def test_threads_that_come_first_at_once_make_one_set(gpu, monkeypatch, name):
    """Recordings keep addresses: those of a set that is dropped would be another's soon."""
    from fastrnn_kernels.cuda.data import weights as module

    def slowly(made):
        def make(*given):
            time.sleep(0.05)
            return made(*given)

        return make

    monkeypatch.setattr(module, "Recent", slowly(module.Recent))
    monkeypatch.setattr(module, "take", slowly(module.take))
    weights, found = weights_of(), []
    ready = threading.Barrier(3)

    def use():
        ready.wait()
        # As `cached_property` does from Python 3.12 on, which holds no lock.
        found.append(getattr(type(weights), name).func(weights))

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(one is getattr(weights, name) for one in found)


@pytest.mark.parametrize("said", [1, 2, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"])
def test_a_pass_in_anothers_capture_is_refused(gpu, said):
    weights = weights_of()
    gpu.driver.captured[11] = int(getattr(CUresult, said)) if isinstance(said, str) else said
    with pytest.raises(RuntimeError, match="current stream is being captured into a CUDA graph"):
        run(gpu, weights)
    assert not gpu.driver.launches
    assert not gpu.library.streams
    gpu.driver.captured[11] = int(CUresult.CUDA_ERROR_INVALID_CONTEXT)  # of a thread without one
    run(gpu, weights)


@pytest.mark.parametrize("compute", ["", "tf32", "bfloat16", "float16"])
def test_a_streams_products_are_in_the_layers_type(gpu, compute):
    from fastrnn_kernels.cuda.stream import Steps

    Steps([weights_of(compute)], B).graph.run()
    assert gpu.library.computed_in == [compute] * (2 * bool(compute))  # of x and of h


def test_a_slice_that_begins_anywhere_is_copied(gpu):
    """By where an array begins cuBLAS chooses among algorithms, and bits follow."""
    from fastrnn_kernels.cuda.launch.arrays import take

    held = gpu.cupy.zeros(64, "float32")
    first = -(held.data.ptr // 4) % 4  # of which address is a multiple of 16
    for k in range(9):
        given = held[first + k : first + k + 8]
        taken = take(given)
        assert taken.data.ptr % 16 == 0
        assert (taken.data.ptr == given.data.ptr) == (k % 4 == 0)
