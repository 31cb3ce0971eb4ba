"""A timeout's handler that raises in the middle of training, again and again: nothing hangs."""

import signal
import subprocess
import sys

import pytest

pytest.importorskip("torch")

#: A step is a millisecond or a few, so that the timer comes anywhere in it: in the passes, where
#: memory is given back, where helpers are called.
SCRIPT = """
import signal, time, torch
import fastrnn.torch as ft
from fastrnn_kernels.cpu.arrays import memory

class TimeoutOfMine(Exception):
    pass

raised = caught = 0

def handler(*_):
    global raised
    raised += 1
    raise TimeoutOfMine

torch.manual_seed(0)
layer, x = ft.LSTM(64, 128), torch.randn(50, 8, 64)

def step():
    layer.zero_grad()
    y, _ = layer(x)
    y.sum().backward()
    return [y.detach().clone(), *(p.grad.clone() for p in layer.parameters())]

for _ in range(3):  # compiles whatever a step may need
    wanted = step()
signal.signal(signal.SIGALRM, handler)
end, delay = time.time() + 4, 0.0
while time.time() < end:
    delay = delay % 0.02 + 0.00037
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        while True:
            step()
    except TimeoutOfMine:
        caught += 1
assert raised == caught > 50, (raised, caught)
assert all(torch.equal(a, b) for a, b in zip(step(), wanted))
assert memory.waiting_bytes() <= memory.LIMIT
print("fine")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_timeout_in_training():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert "gnored" not in done.stderr  # "Exception ignored in", which is lost
