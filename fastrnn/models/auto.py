"""Where a call of device="auto" runs: where its arrays are, or where such a call was faster.

Arrays on the GPU stay there. A call on NumPy arrays is the CPU's where its products are few.
Else both devices run such a call once on zeros, copies to the GPU and back counted, and what
they took is kept in the user's cache folder, by classes of calls: cell, type, sizes up to the
next power of two. `fastrnn tune` measures ahead of time. Without a GPU nothing of this happens.
"""

import logging
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

import numba
import numpy as np

from fastrnn import device
from fastrnn.models.module import Module
from fastrnn_kernels import handlers
from fastrnn_kernels.cache.disk import user_folder
from fastrnn_kernels.cache.memo import Memo, versions
from fastrnn_kernels.cpu import device as cpu
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.weights import Weights

#: Time steps that are measured at most: what comes after them takes in proportion.
MOST_STEPS = 128
#: Calls that are timed at most, and the seconds after which no other one begins.
CALLS, PATIENCE = 5, 1.0

_log = logging.getLogger("fastrnn")
#: Held by who measures; others do not wait, so a forked child may inherit it.
_measuring = threading.Lock()
_failed: set[str] = set()


class Decision(NamedTuple):
    """Where a call runs, and why."""

    device: str
    reason: str


def _up(size: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, size - 1).bit_length()


def name(weights: Sequence[Weights], T: int, B: int, taping: bool) -> str:
    """The class of a call."""
    first = weights[0]
    compute = device.gpu_compute(first.compute)
    what = f"{first.cell.name} {compute} {'train' if taping else 'forward'}"
    sizes = (first.input_size, first.hidden_size, first.state_size)
    I, H, P, T, B = (_up(size) for size in (*sizes, min(T, MOST_STEPS), B))
    threads = cpu.get_num_threads()
    return f"{what} passes={len(weights)} T={T} B={B} I={I} H={H} P={P} threads={threads}"


@cache
def memo() -> Memo:
    """What was measured on this machine."""
    found = {one.name: one for one in device.devices()}
    machine = {
        "gpu": found["cuda"].details.get("gpu", ""),
        "cpu": found["cpu"].details["model"],
        **versions(),
    }
    return Memo(machine, user_folder())


def kernels(
    owner: Module, weights: Sequence[Weights], T: int, B: int, taping: bool, on_gpu: bool
) -> Kernels:
    """The kernels for a call of a layer or cell."""
    found = device.gpu_kernels()
    if on_gpu:
        if found is None or owner.compute not in device.GPU_COMPUTE:
            return owner._checked_kernels("cuda")  # which tells why it cannot be
        return found
    if found is None:
        return cpu
    return device.kernels_of(decide(owner, weights, T, B, taping, on_gpu).device)


def decide(
    owner: Module,
    weights: Sequence[Weights],
    T: int,
    B: int,
    taping: bool,
    on_gpu: bool,
    measuring: bool = True,
) -> Decision:
    """Where a call runs, and why; not `measuring`, what is not known stays so."""
    if any(one.norm for one in weights):
        return Decision("cpu", "norms between products and gates are the CPU's so far")
    if on_gpu:
        return Decision("cuda", "its arrays lie on the GPU")
    if device.gpu_kernels() is None:
        return Decision("cpu", device.devices()[1].reason)
    if device.few_rows(weights) >= T * B:
        return Decision("cpu", "its products are too few for copies to the GPU to pay")
    if owner.compute not in device.GPU_COMPUTE:
        return Decision("cpu", f"the GPU has no kernels of {owner.compute}")
    kind = name(weights, T, B, taping)
    times = [memo().get(f"{kind} {where}") for where in ("cpu", "cuda")]
    if None in times:
        if numba.config.DISABLE_JIT:
            return Decision("cuda", "NUMBA_DISABLE_JIT keeps the CPU's kernels from running")
        if kind not in _failed:
            # Asked before it is taken, for `with` alone lets go of it whatever a signal's handler
            # raises; two who ask at once measure one after the other.
            if not measuring or _measuring.locked():
                return Decision("cpu", "such a call is still to be measured on the GPU")
            with _measuring:
                times = list(_both(owner, kind, T, B, taping))
        if kind in _failed:
            return Decision("cpu", "such a call failed on the GPU")
    on_cpu, on_cuda = (taken or 0.0 for taken in times)
    where = "cuda" if on_cuda < on_cpu else "cpu"
    told = f"the CPU took {on_cpu * 1e3:.3g} ms, the GPU {on_cuda * 1e3:.3g} ms with copies"
    return Decision(where, f"measured on up to {MOST_STEPS} steps of such a call: {told}")


def _both(
    owner: Module, kind: str, T: int, B: int, taping: bool
) -> tuple[float | None, float | None]:
    """Measure a class of calls on both devices and keep it; None for what fails."""
    _log.info("measuring on the CPU and the GPU, once for this machine: %s", kind)
    steps = min(T, MOST_STEPS)
    on_cpu = measure(owner, "cpu", steps, B, taping)
    try:
        on_cuda = measure(owner, "cuda", steps, B, taping)
    except Exception as error:  # whatever the driver, the memory or the compiler raises
        handlers.pass_on(error)
        _failed.add(kind)
        warnings.warn(
            f"device 'auto' means the CPU for {kind}, as the GPU failed: "
            f"{type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return on_cpu, None
    memo().put({f"{kind} cpu": on_cpu, f"{kind} cuda": on_cuda})
    return on_cpu, on_cuda


def measure(owner: Module, where: str, T: int, B: int, taping: bool) -> float:
    """Median seconds of a call on zeros, of one that is like `owner` but on a device."""
    config = owner.config() | {"device": where}
    whole = "num_layers" in config  # not a cell, which takes one step
    if whole:
        config["batch_first"] = False
    if config.get("num_layers") == 1:
        config["dropout"] = 0.0  # which does nothing there, and would be warned of
    twin: Any = type(owner)._restored(config, owner.parameters)
    zeros = np.zeros((T, B, twin.input_size), owner.dtype)
    x = zeros if whole else zeros[0]

    def call() -> None:
        if taping:
            first, *_, tape = twin.forward(x)
            twin.backward(tape, first)
        else:
            twin(x)

    for _ in range(2):  # compiles, and on the GPU records
        call()
    taken: list[float] = []
    while len(taken) < CALLS and sum(taken) < PATIENCE:
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return float(np.median(taken))
