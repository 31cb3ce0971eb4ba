"""Jobs on the threads of torch's own OpenMP runtime: every call once, the same bits, no hang."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn.adapting import threads_of
from fastrnn_kernels.cpu.threads import board, openmp, pool
from jobs import ENOUGH, calls, team

torch = pytest.importorskip("torch")


@pytest.fixture
def runtime():
    """torch's, on two threads, whatever the machine has."""
    before = torch.get_num_threads(), pool.get_num_threads()
    torch.set_num_threads(2)
    pool.set_num_threads(2)
    found = threads_of(torch, "libtorch_cpu")
    if not isinstance(found, openmp.Runtime):
        pytest.skip("this torch has no OpenMP runtime")
    yield found
    torch.set_num_threads(before[0])
    pool.set_num_threads(before[1])


def test_every_call_is_made_once_and_both_threads_take_part(runtime, monkeypatch):
    """Two calls wait for each other: that takes two threads, and no helper is asked."""
    monkeypatch.setattr(board, "begin", None)
    for _ in range(50):
        seen, one = calls(9, meeting=2)
        with runtime:
            pool.run([one], ENOUGH)
        assert np.array_equal(seen, np.ones(9))


def test_a_team_has_no_more_members_than_threads_have_come(runtime):
    seen = np.zeros(5, np.int64)
    with runtime:
        pool.run([team(5, True, seen)], ENOUGH)
    assert seen.tolist() == [2, 2, 0, 0, 0]


def test_the_framework_says_how_many(runtime):
    for many in (1, 2):
        torch.set_num_threads(many)
        with runtime:
            assert pool.get_num_threads() == many
        assert pool.get_num_threads() == 2
    assert openmp.current() is None


def test_little_work_stays_with_the_caller(runtime, monkeypatch):
    monkeypatch.setattr(openmp.Runtime, "run", None)
    seen, one = calls(5)
    with runtime:
        pool.run([one], pool.MIN_WORK - 1)
    assert np.array_equal(seen, np.ones(5))


def test_in_a_region_of_the_framework_the_caller_works_alone(runtime):
    """Its other threads have work of their own."""
    number, found, kind = ctypes.c_uint, [], ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    parallel = ctypes.CFUNCTYPE(None, kind, ctypes.c_void_p, number, number)(runtime._functions[0])

    @kind
    def inside(_):
        seen = np.zeros(2, np.int64)
        with runtime:
            pool.run([team(2, True, seen)], ENOUGH)
        found.append(seen.tolist())

    parallel(inside, None, 2, 0)
    assert found == [[1, 0], [1, 0]]


def test_while_another_thread_has_the_board_the_caller_works_alone(runtime):
    own, seen = pool._pool.own_board(), np.zeros(2, np.int64)
    own[board.OWNER] = 12345
    try:
        with runtime:
            pool.run([team(2, True, seen)], ENOUGH)
    finally:
        own[board.OWNER] = board.FREE
    assert seen.tolist() == [1, 0]


def test_results_have_the_same_bits(runtime):
    layer = fastrnn.LSTM(40, 96, num_layers=2, bidirectional=True, seed=0)
    x = np.random.default_rng(0).standard_normal((30, 7, 40), dtype=np.float32)
    y, _, tape = layer.forward(x)
    wanted = layer.backward(tape, y)
    with runtime:
        again, _, tape = layer.forward(x)
        found = layer.backward(tape, again)
    assert np.array_equal(again, y)
    assert np.array_equal(found.x, wanted.x)
    for name, value in wanted.parameters.items():
        assert np.array_equal(found.parameters[name], value), name


def test_what_has_no_runtime(tmp_path):
    assert openmp.runtime_of(str(tmp_path / "none.so")) is None


MODEL = """
import os, sys, threading
import numpy as np, torch, fastrnn.torch
torch.manual_seed(0)
lstm = fastrnn.torch.LSTM(32, 96, 2)
x = torch.randn(40, 16, 32)

def step():
    lstm.zero_grad()
    y, _ = lstm(x)
    y.square().sum().backward()
    return np.concatenate([y.detach().numpy().ravel(), lstm.weight_hh_l0.grad.numpy().ravel()])
"""


def said(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", MODEL + program], capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


DIGEST = "import hashlib; print(hashlib.sha256(step().tobytes()).hexdigest())"


@pytest.fixture(scope="module")
def digest():
    """Of a training step with settings as they are."""
    return said(DIGEST)


@pytest.mark.parametrize(
    "settings",
    [
        {"OMP_THREAD_LIMIT": "1"},
        {"OMP_NUM_THREADS": "7", "OMP_DYNAMIC": "true"},
        {"OMP_WAIT_POLICY": "passive", "GOMP_CPU_AFFINITY": "0"},
    ],
    ids=lambda settings: ",".join(f"{name}={value}" for name, value in settings.items()),
)
def test_settings_of_the_runtime_change_no_bit(settings, digest):
    assert said(DIGEST, **settings) == digest


def test_a_second_runtime_in_the_process(tmp_path, digest):
    """As scikit-learn brings one: calls between its regions, and from inside of them."""
    own = next((Path(torch.__file__).parent / "lib").glob("libgomp*"), None)
    if own is None:
        pytest.skip("torch brings no libgomp")
    other = tmp_path / "another.so"  # a library by another path is another one
    other.write_bytes(own.read_bytes())
    program = f"""
import ctypes
other = ctypes.CDLL({str(other)!r})
assert ctypes.cast(other.GOMP_parallel, ctypes.c_void_p).value not in (
    ctypes.cast(ctypes.CDLL({str(own)!r}).GOMP_parallel, ctypes.c_void_p).value,
)
wanted, found = step(), []

def inside(_):
    with torch.no_grad():
        found.append(np.array_equal(lstm(x)[0].numpy().ravel(), wanted[: 40 * 16 * 96]))

kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
for _ in range(20):
    other.GOMP_parallel(kind(inside), None, 2, 0)
    assert np.array_equal(step(), wanted)
assert found == [True] * 40
"""
    assert said(program + DIGEST) == digest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_process_that_forks_in_mid_call():
    """As by a signal's handler: the child is still in the context of its parent's call."""
    program = """
import warnings
from fastrnn.adapting import threads_of
warnings.simplefilter("ignore")
torch.set_num_threads(2)
fastrnn.set_num_threads(2)
step()
layer, z = fastrnn.LSTM(32, 96, seed=0), x.numpy()
wanted = layer(z)[0]
with threads_of(torch, "libtorch_cpu"):
    child = os.fork()
    same = np.array_equal(layer(z)[0], wanted)
if child == 0:
    os._exit(0 if same else 3)
assert same
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert said(program) == ["0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_has_threads_of_its_own():
    """Those of the runtime do not survive a fork: who calls them there waits for ever."""
    program = """
import warnings
warnings.simplefilter("ignore")
torch.set_num_threads(2)
fastrnn.set_num_threads(2)
with torch.no_grad():
    wanted = lstm(x)[0].numpy().copy()
if os.fork() == 0:
    with torch.no_grad():
        same = np.array_equal(lstm(x)[0].numpy(), wanted)
    os._exit(0 if same else 3)
print(os.waitstatus_to_exitcode(os.wait()[1]))
with torch.no_grad():
    assert np.array_equal(lstm(x)[0].numpy(), wanted)
"""
    assert said(program) == ["0"]


def test_threads_that_call_in_turns(runtime):
    """torch and fastrnn at once from many threads, each of which torch gives a team of its own."""
    import fastrnn.torch as ours

    torch.manual_seed(0)
    lstm, x, square = ours.LSTM(24, 64), torch.randn(20, 8, 24), torch.randn(200, 200)
    with torch.no_grad():
        wanted = lstm(x)[0]
    wrong = []

    def work():
        for _ in range(20):
            with torch.no_grad():
                torch.mm(square, square)
                if not torch.equal(lstm(x)[0], wanted):
                    wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert not any(one.is_alive() for one in threads)
    assert wrong == []
