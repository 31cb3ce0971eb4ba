"""Processes that end while a call computes: as they were told to, without a crash and without end.

Each is a process of its own. It ends, in one of the ways in which programs do, when a call has been
seen to be under way.
"""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are of another kind there")

#: Calls that take a second or so, by what they come through: `call()` is one.
CALLS = {
    "numpy": """
import fastrnn
layer = fastrnn.LSTM(64, 192, seed=0)
def call():
    y, _, tape = layer.forward(np.ones((4000, 8, 64), np.float32))
    layer.backward(tape, y)
""",
    "stream": """
import fastrnn
stream = fastrnn.LSTM(64, 192, seed=0).stream(batch_size=8)
def call():
    stream.block(np.ones((8000, 8, 64), np.float32))
""",
    "torch": """
import torch
from fastrnn.torch import LSTM
layer = LSTM(64, 192)
def call():
    layer(torch.ones(4000, 8, 64))[0].sum().backward()
""",
    "jax": """
import keras, fastrnn.keras
layer = fastrnn.keras.LSTM(192)
model = keras.Sequential([keras.Input((8000, 64)), layer])
def call():
    model.predict_on_batch(np.ones((8, 8000, 64), np.float32))
""",
}
#: How the process ends, and its exit code.
ENDS = {
    "returns": ("pass", 0),
    "exits": ("os._exit(7)", 7),
    "handler exits": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); os.kill(os.getpid(), 15); wait()",
        7,
    ),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); wait()", -signal.SIGTERM),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL); wait()", -signal.SIGKILL),
}
SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
{call}
def wait():
    time.sleep(60)
    raise SystemExit("the signal did nothing")

call()  # compiles
begun, done = [], []
def forever():
    while True:
        begun.append(None)
        call()
        done.append(None)

threading.Thread(target=forever, daemon=True).start()
def under_way():
    before = len(begun)
    time.sleep(0.1)
    return before == len(begun) == len(done) + 1
while not under_way():
    pass
print("inside", flush=True)
{end}
"""
#: The handler ends a call of the main thread itself, between two of its parts.
IN_MAIN = """
import os, signal, sys, threading, time
import numpy as np
{call}
call()  # compiles
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
threading.Timer(0.2, lambda: print("inside", flush=True) or os.kill(os.getpid(), 15)).start()
while True:
    call()
"""
#: XLA's own threads compute, while the main thread goes on. (A thread of Python's that waits for
#: them ends the process with SIGABRT when Python ends, in JAX alone too.)
BEHIND = """
import os, signal, sys, time
import numpy as np
import jax, keras, fastrnn.keras
layer = fastrnn.keras.LSTM(192)
layer.build((8, 8000, 64))
run = jax.jit(layer)
x = np.ones((8, 8000, 64), np.float32)
def wait():
    time.sleep(60)
    raise SystemExit("the signal did nothing")

run(x).block_until_ready()  # compiles
found = run(x)
while found.is_ready():
    found = run(x)
print("inside", flush=True)
{end}
"""


def ended(through, script):
    """How a process that runs a script ended; what it printed, and what it said of errors."""
    for module in {"numpy": [], "stream": [], "jax": ["jax", "keras"]}.get(through, [through]):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,  # of a busy machine
    )
    return done.returncode, done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("through", "end"),
    [
        *(("numpy", end) for end in ENDS),
        *(("torch", end) for end in ("returns", "exits", "handler exits")),
        ("stream", "returns"),
    ],
)
def test_a_process_ends_while_another_thread_computes(through, end):
    statement, code = ENDS[end]
    found, printed, said = ended(through, SCRIPT.format(call=CALLS[through], end=statement))
    assert (found, printed, said) == (code, ["inside"], "")


@pytest.mark.parametrize("end", ["returns", "exits", "handler exits"])
def test_a_process_ends_while_a_program_of_jax_computes(end):
    statement, code = ENDS[end]
    found, printed, said = ended("jax", BEHIND.format(end=statement))
    assert (found, printed, said) == (code, ["inside"], "")


@pytest.mark.parametrize("through", CALLS)
def test_a_handler_ends_the_process_while_its_main_thread_computes(through):
    found, printed, said = ended(through, IN_MAIN.format(call=CALLS[through]))
    assert (found, printed, said) == (7, ["inside"], "")
