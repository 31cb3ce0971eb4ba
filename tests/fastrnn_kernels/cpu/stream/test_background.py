"""Processes that compile: one at a time, gone with this one, and no harm where they fail."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fastrnn_kernels.cache.disk import cache_folder
from fastrnn_kernels.cpu.stream import background

SECONDS = 120  # after which something hangs


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


class Takers:
    """Functions that are called when a task is done, and what they say."""

    def __init__(self, there=True):
        self.called, self.there = [], there

    def __call__(self, name):
        return lambda: lambda: self.called.append(name) or self.there


@pytest.fixture
def work(monkeypatch):
    """Work of a test's own; whatever it started ends with it."""
    fresh = background._Work()
    monkeypatch.setattr(background, "_work", fresh)
    yield fresh
    fresh.end()


@pytest.fixture
def does(monkeypatch):
    """Sets what the process does in place of compiling: Python code, `task` its argument."""

    def set_to(code):
        monkeypatch.setattr(
            background,
            "_command",
            lambda task: [sys.executable, "-c", background._WATCH + code, task],
        )

    return set_to


def test_one_at_a_time_in_their_order(work, does, tmp_path):
    log = tmp_path / "log"
    does(f"open({str(log)!r}, 'a').write('begin\\n'); open({str(log)!r}, 'a').write('end\\n')")
    takers = Takers()
    for name in "abc":
        background.ask(name, takers(name))
    until(lambda: takers.called == ["a", "b", "c"])
    assert log.read_text().split() == ["begin", "end"] * 3
    until(lambda: not work.running)
    assert work.process is None


def test_who_asks_for_the_same_shares_it(work, does):
    does("pass")
    takers = Takers()
    with work.lock:  # nothing is begun meanwhile
        work.running = True
    background.ask("a", takers("first"))
    background.ask("a", takers("second"))
    work._see_to_them()
    assert takers.called == ["first", "second"]


def test_what_nobody_waits_for_is_compiled_all_the_same(work, does, tmp_path):
    does(f"open({str(tmp_path / 'made')!r}, 'w').close()")
    background.ask("a", lambda: None)
    until(lambda: (tmp_path / "made").exists() and not work.running)
    assert not work.refused


@pytest.mark.parametrize("code", ["sys.exit(3)", "pass", "raise KeyError", "os.abort()"])
def test_one_that_fails_is_the_last(work, does, caplog, code):
    """As where the cache cannot be written: the process ends well, and nothing is there."""
    caplog.set_level(logging.WARNING, "fastrnn")  # the command line, in this process, raises it
    does(code)
    takers = Takers(there=False)
    background.ask("a", takers("a"))
    until(lambda: work.refused)
    background.ask("b", takers("b"))
    until(lambda: not work.running)
    assert takers.called == ["a"]
    (said,) = caplog.messages
    assert "streams go on with steps of any sizes" in said
    assert "`stream.warmup()` compiles here" in said


@pytest.mark.parametrize("error", [PermissionError("no processes"), RuntimeError("unforeseen")])
def test_where_no_process_can_be_started(work, monkeypatch, caplog, error):
    def start(task):
        raise error

    caplog.set_level(logging.WARNING, "fastrnn")
    monkeypatch.setattr(background, "_start", start)
    background.ask("a", Takers()("a"))
    until(lambda: work.refused)
    assert str(error) in caplog.text


def test_where_no_thread_can_be_started(work, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    background.ask("a", Takers()("a"))
    assert not work.running


def test_what_is_given_up_is_ended_and_the_next_begins(work, does):
    does("import time\nif sys.argv[1] == 'long': time.sleep(600)")
    takers = Takers()
    background.ask("long", takers("long"))
    background.ask("short", takers("short"))
    until(lambda: work.process is not None)
    background.give_up("long")
    until(lambda: takers.called)
    assert takers.called == ["short"]
    assert not work.refused


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_one_that_is_killed(work, does):
    does("import time; time.sleep(600)")
    background.ask("a", Takers(there=False)("a"))
    until(lambda: work.process is not None)
    process = work.process
    process.send_signal(signal.SIGKILL)
    until(lambda: work.refused)
    assert process.returncode == -signal.SIGKILL  # waited for: no zombie is left


PARENT = """
import os, sys, time
from fastrnn_kernels.cpu.stream import background
background._command = lambda task: [
    sys.executable, "-c", background._WATCH + "import time; time.sleep(600)"
]
background.ask("a", lambda: None)
while background._work.process is None:
    time.sleep(0.01)
print(background._work.process.pid, flush=True)
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")  # a container's first process may wait for no orphans
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    "ends",
    ["", "os.kill(os.getpid(), 9)", "os._exit(0)", "raise SystemExit(1)", "1 / 0"],
)
def test_it_ends_with_its_parent(ends):
    """However that ends; and that does not wait for it, or tell of it."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT + ends], capture_output=True, text=True, timeout=SECONDS
    )
    until(lambda: gone(int(done.stdout)))
    assert "fastrnn" not in done.stderr.replace("fastrnn_kernels", "")
    assert done.returncode == {"": 0, "os._exit(0)": 0, "os.kill(os.getpid(), 9)": -9}.get(ends, 1)


FORK = """
background._command = lambda task: [sys.executable, "-c", background._WATCH]
child = os.fork()
if child == 0:
    called = []
    background.ask("b", lambda: lambda: called.append("b") or True)
    while background._work.running:
        time.sleep(0.01)
    assert called == ["b"] and not background._work.refused
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert background._work.process.poll() is None, "the child has ended its parent's"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_its_own_process():
    """And does what its parent had still to do, which here nobody waits for."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT + FORK], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr


def test_who_may_have_one(monkeypatch):
    monkeypatch.delenv("FASTRNN_BACKGROUND", raising=False)
    assert background.usable()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/usr/bin/blender")
        assert not background.usable()
        patch.setattr(sys, "executable", None)
        assert not background.usable()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "frozen", True, raising=False)
        assert not background.usable()
    with monkeypatch.context() as patch:
        patch.setattr(background, "cache_folder", lambda: None)
        assert not background.usable()
    monkeypatch.setenv("FASTRNN_BACKGROUND", "none")
    assert not background.usable()


WHOLE = """
import sys, time
import numpy as np
import fastrnn
from fastrnn_kernels.cpu.stream import background, generic

background._WATCH = background._WATCH.replace("os.nice(10)", "pass")  # beside other tests
layer = fastrnn.RNN(29, 3, seed=0)
generic.addresses([stage for stage, _ in layer._stages(1, "full")], False)
stream = layer.stream()
assert not stream.specialised
x = np.ones(29, np.float32)
before = stream.step(x, copy=True)
end = time.monotonic() + float(sys.argv[1])
while not stream.specialised and not background._work.refused and time.monotonic() < end:
    time.sleep(0.05)
stream.reset()
assert np.array_equal(stream.step(x), before)
print(stream.specialised)
"""


@pytest.mark.parametrize("writeable", [True, False])
def test_the_whole_of_it(tmp_path, writeable):
    """A stream's own step comes from another process; where that cannot keep it, it does not."""
    kernels = tmp_path / cache_folder().name
    kernels.mkdir()
    for file in cache_folder().glob("stream-*"):
        shutil.copy(file, kernels)
    environment = {**os.environ, "FASTRNN_CACHE_DIR": str(tmp_path)}
    environment.pop("FASTRNN_BACKGROUND", None)
    code = WHOLE
    if not writeable:  # for the superuser a folder's mode would not do
        code = WHOLE.replace("layer =", "background._COMPILE = 'pass'\nlayer =")
    done = subprocess.run(
        [sys.executable, "-c", code, str(SECONDS)],
        env=environment, capture_output=True, text=True, timeout=2 * SECONDS,
    )  # fmt: skip
    assert done.stdout.split() == [str(writeable)], done.stderr
    assert ("streams go on" in done.stderr) != writeable
