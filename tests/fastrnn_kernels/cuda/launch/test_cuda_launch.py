"""Launches, taken by a stand-in for the CUDA driver; `test_cuda_ptx.py` looks at all kernels."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

import compilers

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(bool(config.ENABLE_CUDASIM), reason="Numba's simulator launches by itself"),
]

if not config.ENABLE_CUDASIM:
    compilers.need("numba_cuda")
    from cuda.bindings.driver import CUresult

    from cuda_driver import Driver
    from fastrnn_kernels.cuda.launch.errors import LaunchError, TooManyBlocksError
    from fastrnn_kernels.cuda.launch.kernel import Kernel

    def scale(y, x, mask, B, H, adding):
        pass

    KERNEL = Kernel(scale, np.dtype(np.float32), "vvmiib")


def array(address):
    """What a launch sees of an array of CuPy's."""
    return SimpleNamespace(data=SimpleNamespace(ptr=address))


@pytest.fixture
def driver():
    with Driver() as found:
        yield found


def launch(driver, kernel=None, meets=False, cooperative=False, cluster=1, **arguments):
    loaded = driver.loaded(kernel or KERNEL, meets)
    given = {"y": array(1 << 46), "x": 4096, "mask": None, "B": 3, "H": -5, "adding": True}
    given.update(arguments)
    loaded.launch(6, 32, 1024, 9, list(given.values()), cooperative, cluster)
    return loaded


def test_addresses_of_arrays_and_values_are_packed(driver):
    launch(driver)
    (found,) = driver.launches
    assert found.values([8, 8, 8, 8, 8, 1]) == [1 << 46, 4096, 0, 3, -5, 1]
    assert found[:7] == (5, 6, 32, 1024, 9, False, 1)


def test_a_block_may_ask_for_all_shared_memory_that_is_left(driver):
    launch(driver)
    wanted = (1 << 17) - 64
    assert driver.attributes == [("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", wanted)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"cooperative": True}, (True, 1)),
        ({"meets": True}, (True, 1)),
        ({"cluster": 3}, (False, 3)),
        ({"meets": True, "cluster": 2}, (True, 2)),
    ],
)
def test_blocks_that_wait_for_each_other_are_launched_so(driver, options, wanted):
    launch(driver, **options)
    (found,) = driver.launches
    assert found[:7] == (5, 6, 32, 1024, 9, *wanted)
    assert found.values([8, 8, 8, 8, 8, 1])[3:] == [3, -5, 1]


def test_a_large_cluster_is_allowed_first_and_once(driver):
    loaded = launch(driver, cluster=16)
    loaded.launch(16, 32, 0, 9, [0, 0, 0, 1, 1, False], True, 16)
    names = [name for name, _ in driver.attributes]
    assert names.count("CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED") == 1
    assert [found.cluster for found in driver.launches] == [16, 16]


def test_a_refusal_names_the_kernel_and_the_sizes(driver):
    driver.answers = [CUresult.CUDA_ERROR_ILLEGAL_ADDRESS]
    with pytest.raises(
        LaunchError,
        match=r"scale was not launched, 6 blocks of 32 threads and 1,024 bytes of shared memory, "
        r"B=3, H=-5: CUDA_ERROR_ILLEGAL_ADDRESS",
    ):
        launch(driver)
    assert not driver.launches


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        ("COOPERATIVE_LAUNCH_TOO_LARGE", {"cooperative": True}),
        ("INVALID_CLUSTER_SIZE", {"cluster": 8}),
    ],
)
def test_blocks_that_cannot_run_at_once_are_told(driver, answer, options):
    driver.answers = [getattr(CUresult, f"CUDA_ERROR_{answer}")]
    with pytest.raises(TooManyBlocksError, match=answer):
        launch(driver, **options)
    assert not driver.launches


def test_a_thread_without_a_context_gets_one(driver, monkeypatch):
    from fastrnn_kernels.cuda.launch import loaded

    made = []
    monkeypatch.setattr(loaded.cuda, "current_context", lambda: made.append(1))
    driver.answers = [CUresult.CUDA_ERROR_INVALID_CONTEXT]
    launch(driver)
    assert len(driver.launches) == len(made) == 1


def test_threads_do_not_share_the_memory_of_arguments(driver, monkeypatch):
    """One thread packs its arguments while another is in the driver, which lets Python go on."""
    loaded = driver.loaded(KERNEL)
    inside, packed = threading.Event(), threading.Event()
    plain = driver._take

    def slowly(*shape, arguments):
        if threading.current_thread() is first:
            inside.set()
            assert packed.wait(10)
        return plain(*shape, arguments=arguments)

    monkeypatch.setattr(driver, "_take", slowly)

    def run(number):
        loaded.launch(1, 1, 0, number, [number] * 5 + [False], False, 1)

    first = threading.Thread(target=run, args=(1,))
    first.start()
    assert inside.wait(10)
    run(2)
    packed.set()
    first.join()
    for found in driver.launches:
        assert found.values([8] * 5 + [1]) == [found.stream] * 5 + [0]


def test_addresses_go_before_values():
    with pytest.raises(ValueError, match=r"scale has arguments 'viv', addresses go first"):
        Kernel(scale, np.dtype(np.float32), "viv")
