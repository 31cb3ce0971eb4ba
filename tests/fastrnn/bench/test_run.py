"""The gate: who is wrong, dies or hangs is said to be, is not timed, and stops nobody else."""

from dataclasses import replace

import pytest

from fastrnn.bench import timing
from fastrnn.bench.cases import Shape, cases_of
from fastrnn.bench.contender import Contender
from fastrnn.bench.contenders import COMPILED, OWN, PEERS
from fastrnn.bench.run import Settings, run

PROBES = {"fma": 1e12, "L1": 1e12, "L2": 1e12, "L3": 1e12, "memory": 1e12}
CACHES = {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 25}
FORWARD, TRAIN = cases_of("quick", ("lstm",), (Shape(3, 2, 4, 5),))
WRONG = {"read": "answer['y'][1, 1, 2] += 1e-3"}

#: The NumPy loop, spoilt at one place.
SPOILT = """
import os, time
import numpy as np
from fastrnn.bench.contenders.numpy import Loop

class Spoilt(Loop):
    calls = 0

    def run(self, sample):
        self.calls += 1
        result = super().run(sample)
        {run}
        return result

    def read(self, result):
        answer = super().read(result)
        {read}
        return answer

def build(case, threads, device):
    {build}
    return Spoilt(case)
"""


@pytest.fixture
def spoilt(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(timing, "MAX_ROUNDS", 3)

    def make(run="pass", read="pass", build="pass"):
        (tmp_path / "spoilt_contender.py").write_text(
            SPOILT.format(run=run, read=read, build=build)
        )
        return Contender("spoilt", "spoilt_contender")

    return make


def rows(case, *contenders, timeout=60.0):
    done = []
    found = run([case], contenders, Settings(1, timeout, PROBES, CACHES), done.append)
    assert done == [case]
    assert [row.contender for row in found] == [c for c in contenders if c.takes(case)]
    return {row.contender.name: row for row in found}


def test_a_good_contender_gets_all_its_numbers(spoilt):
    row = rows(TRAIN, spoilt())["spoilt"]
    assert row.error is None
    assert 0 < row.median_s <= row.p99_s < 60
    assert row.compile_s >= 0
    assert row.samples == 3
    assert row.calls >= 1
    assert row.gflops == pytest.approx(TRAIN.flops / row.median_s / 1e9)
    assert row.of_peak == pytest.approx(row.gflops / 1e3)
    assert row.of_roof >= row.of_peak


def test_single_steps_are_timed_one_by_one_too(spoilt):
    (case,) = cases_of("stream", ("gru",), (Shape(1, 1, 4, 5),))
    found = rows(case, OWN, COMPILED, PEERS["numpy"])
    assert [row.error for row in found.values()] == [None] * 3
    for name in ("fastrnn", "numpy"):
        p50, p99, p999, worst = (found[name].single[k] for k in ("p50", "p99", "p99.9", "worst"))
        assert 0 < p50 <= p99 <= p999 <= worst < 60
    assert found["fastrnn.jit"].single is None
    assert rows(FORWARD, COMPILED) == {}


@pytest.mark.parametrize(
    ("case", "fault", "told"),
    [
        (FORWARD, WRONG, "y differs from the reference"),
        (TRAIN, WRONG, "y differs from the reference"),
        (TRAIN, {"read": "del answer['c_n']"}, "wanted"),
        # right at first, as one whose buffers are overwritten by later calls
        (TRAIN, {"read": "answer['h_n'] *= self.calls == 1"}, "h_n differs from the reference"),
        (TRAIN, {"run": "raise ValueError('no such thing')"}, "ValueError: no such thing"),
        (TRAIN, {"run": "if self.calls > 20: raise ValueError('late')"}, "ValueError: late"),
        (TRAIN, {"build": "raise ImportError('not here')"}, "ImportError: not here"),
        (TRAIN, {"run": "os._exit(5)"}, "its process ended with exit code 5"),
    ],
    ids=[
        "wrong forward",
        "wrong",
        "incomplete",
        "wrong later",
        "raises",
        "raises late",
        "no build",
        "dies",
    ],
)
def test_a_bad_contender_is_told_and_the_good_one_timed(spoilt, case, fault, told):
    found = rows(case, spoilt(**fault), PEERS["numpy"])
    bad = found["spoilt"]
    assert told in bad.error
    assert bad.median_s is bad.p99_s is bad.gflops is bad.compile_s is None
    assert found["numpy"].error is None
    assert found["numpy"].median_s > 0


def test_a_wrong_gradient_is_told(spoilt):
    bad = rows(TRAIN, spoilt(read="answer['dweight_hh'][3, 1] -= 0.01"))["spoilt"]
    assert bad.error.startswith("dweight_hh differs from the reference by")


def test_one_that_hangs_is_told_in_time(spoilt):
    found = rows(FORWARD, spoilt(run="time.sleep(600)"), PEERS["numpy"], timeout=8.0)
    assert found["spoilt"].error == "gave no answer within 8 s"
    assert found["numpy"].error is None


def test_one_that_runs_out_of_a_limit_of_its_own_is_no_fault(spoilt):
    slow = replace(spoilt(run="time.sleep(600)"), limit=1.0)
    found = rows(FORWARD, slow, PEERS["numpy"])
    assert found["spoilt"].error == "gave no answer within 1 s"
    assert not found["spoilt"].failed
    assert found["numpy"].median_s > 0
    wrong = rows(FORWARD, replace(spoilt(**WRONG), limit=60.0))["spoilt"]
    assert wrong.failed


def test_one_that_does_not_take_a_case_has_no_row_for_it():
    assert rows(TRAIN, PEERS["onnxruntime"]) == {}
