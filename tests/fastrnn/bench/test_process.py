"""Workers as processes: they stop, continue, die, hang, and none of it harms the parent."""

import sys
import time
from pathlib import Path

import pytest

from fastrnn.bench.cases import Case, Shape
from fastrnn.bench.contender import Contender
from fastrnn.bench.contenders import PEERS
from fastrnn.bench.process import CAN_STOP, Worker, WorkerError

CASE = Case("quick", "gru", Shape(3, 2, 4, 5), "forward", "float32")

ODD = """
import os, sys, time

class Program:
    def load(self, sample): return sample
    def read(self, result): return {}
    def run(self, loaded): BODY

def build(case, threads, device):
    print("a library that talks on stdout")
    return Program()
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A contender whose calls are one line of Python."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(body):
        (tmp_path / "odd_contender.py").write_text(ODD.replace("BODY", body))
        return Contender("odd", "odd_contender")

    return make


def state(worker):
    """The letter that Linux gives a process's state."""
    stat = Path(f"/proc/{worker._process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def built(worker, contender):
    worker.ask("build", contender, CASE, 1)
    return worker


def test_it_calls_and_times():
    with Worker(1, 60) as worker:
        built(worker, PEERS["numpy"])
        seconds, answer = worker.ask("first")
        assert seconds > 0
        assert answer["y"].shape == (3, 2, 5)
        assert 0 < worker.ask("calibrate", 0.001) < 60
        assert 0 < worker.ask("sample", 7) < 60


@pytest.mark.skipif(not CAN_STOP or sys.platform != "linux", reason="states are read from /proc")
def test_it_is_stopped_whenever_it_is_not_asked():
    with Worker(1, 60) as worker:
        built(worker, PEERS["numpy"])
        for _ in range(3):
            end = time.monotonic() + 10
            while state(worker) != "T":  # the signal takes a moment to arrive
                assert time.monotonic() < end
            worker.ask("sample", 1)


def test_it_has_the_threads_it_is_given(odd):
    with Worker(3, 60) as worker:
        body = "raise ValueError(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
        with pytest.raises(WorkerError, match=r"ValueError: \('3', '3'\)"):
            built(worker, odd(body)).ask("first")


def test_what_it_raises_is_told_and_it_goes_on(odd):
    with Worker(1, 60) as worker:
        built(worker, odd("raise KeyError('x')"))
        for _ in range(2):
            with pytest.raises(WorkerError, match="KeyError: 'x'"):
                worker.ask("first")


def test_how_it_died_is_told(odd):
    with Worker(1, 60) as worker:
        built(worker, odd("print('the last word', file=sys.stderr, flush=True); os._exit(3)"))
        with pytest.raises(WorkerError, match="ended with exit code 3: the last word"):
            worker.ask("first")
        with pytest.raises(WorkerError, match="ended with exit code 3"):
            worker.ask("first")


@pytest.mark.skipif(not CAN_STOP, reason="no signals here")
def test_the_signal_that_killed_it_is_told(odd):
    with Worker(1, 60) as worker:
        built(worker, odd("os.kill(os.getpid(), 9)"))
        with pytest.raises(WorkerError, match="ended with signal SIGKILL"):
            worker.ask("first")


def test_a_hang_ends_with_the_timeout(odd):
    with Worker(1, 60) as worker:
        built(worker, odd("time.sleep(600)"))
        worker.timeout = 0.2
        with pytest.raises(WorkerError, match=r"no answer within 0\.2 s"):
            worker.ask("first")


def test_closing_ends_the_process_and_may_be_repeated():
    worker = Worker(1, 60)
    built(worker, PEERS["numpy"])
    worker.close()
    assert worker._process.returncode is not None
    worker.close()
