"""Measuring ahead which path and which device is faster, for `device="cuda"` and `"auto"`.

What is found is kept in the user's cache folder: the paths' times for this kind of GPU, those
of the devices for it and this CPU.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, cast

import numba

from fastrnn import check
from fastrnn.device import CPU_COMPUTE, GPU_COMPUTE, kernels_for, tf32
from fastrnn.models import auto
from fastrnn.models.classes import entry_of, layer_of
from fastrnn_kernels.device import TunedDevice, possible

#: Sizes and batches that are measured where none are named.
SIZES, BATCHES = (64, 128, 256, 512, 1024), (1, 16, 64)
#: Time steps of what is timed, and calls.
STEPS, CALLS = 64, 5


class Point(NamedTuple):
    """A layer and a batch that are measured."""

    cell: str
    dtype: str
    H: int
    B: int

    def __str__(self) -> str:
        return f"{self.cell} {self.dtype} H={self.H} B={self.B}"


class Found(NamedTuple):
    """What was measured of one point: seconds by name, and whether they could be kept."""

    point: Point
    paths: dict[str, dict[str, float]]  # "forward" and "backward": a step, by path
    devices: dict[str, dict[str, float]]  # "forward" and "train": a call, by device
    kept: bool


def points(
    cells: Sequence[str], dtypes: Sequence[str], sizes: Sequence[int], batches: Sequence[int]
) -> list[Point]:
    """All combinations; raises TypeError or ValueError for what there is no layer of."""
    for cell in cells:
        entry_of(cell)
    for dtype in dtypes:
        check.choice("dtypes", dtype, (*GPU_COMPUTE, "tf32"))
    H = [check.size("sizes", size) for size in sizes]
    B = [check.size("batches", batch) for batch in batches]
    return list(itertools.starmap(Point, itertools.product(cells, dtypes, H, B)))


def tune(chosen: Sequence[Point]) -> Iterator[Found]:
    """Measure one point after the other, and keep what is found.

    Raises RuntimeError, with the reason, where there is no GPU to use.
    """
    kernels = cast(TunedDevice, kernels_for("cuda"))
    for point in chosen:
        with tf32(point.dtype == "tf32"):
            found = _found(kernels, point)
        yield found


def _found(kernels: TunedDevice, point: Point) -> Found:
    """Measure a point on all paths and both devices."""
    kept = True
    paths: dict[str, dict[str, float]] = {}
    devices: dict[str, dict[str, float]] = {}
    dtype = "float32" if point.dtype == "tf32" else point.dtype
    layer = layer_of(point.cell, point.H, point.H, dtype=dtype, device="cuda")
    (weights,) = layer._weights_for(layer._version, kernels)
    for backward in (False, True):
        times = _paths(kernels, layer, point.B, backward)
        kept &= kernels.keep(weights, point.B, backward, times)
        paths["backward" if backward else "forward"] = times
    if not numba.config.DISABLE_JIT and dtype in CPU_COMPUTE:
        for taping in (False, True) if dtype != "bfloat16" else (False,):
            name = auto.name(layer._version.weights, STEPS, point.B, taping)
            taken = {
                where: auto.measure(layer, where, STEPS, point.B, taping)
                for where in ("cpu", "cuda")
            }
            kept &= auto.memo().put({f"{name} {where}": s for where, s in taken.items()})
            devices["train" if taping else "forward"] = taken
    return Found(point, paths, devices, kept)


def _paths(kernels: TunedDevice, layer: Any, B: int, backward: bool) -> dict[str, float]:
    """Seconds a step of a pass, on every path that its shape fits."""
    (weights,) = layer._weights_for(layer._version, kernels)
    x = kernels.xp.zeros((STEPS, B, layer.input_size), layer.dtype)
    paths = kernels.route(weights, STEPS, B, 1, backward).paths
    return {path: seconds(kernels, layer, x, path, backward) for path in possible(paths)}


def seconds(kernels: TunedDevice, layer: Any, x: Any, path: str, backward: bool) -> float:
    """Median seconds a step of a pass over x on a path, compiled and recorded before."""

    def timed(call: Callable[[], Any]) -> float:
        kernels.wait()
        start = perf_counter()
        call()
        kernels.wait()
        return perf_counter() - start

    if backward:
        y, _, tape = layer.forward(x)

        def call() -> Any:
            return layer.backward(tape, y)
    else:

        def call() -> Any:
            return layer(x)

    with kernels.only(path):
        for _ in range(2):
            call()
        return median(timed(call) for _ in range(CALLS)) / len(x)


def described(found: Found) -> list[str]:
    """What was found, as lines of text."""
    lines = [str(found.point)]
    for what, times in found.paths.items():
        best = min(times, key=lambda path: times[path])
        told = ", ".join(f"{path} {s * 1e6:.2f} µs a step" for path, s in times.items())
        lines.append(f"  {what}: {best} ({told})")
    for what, times in found.devices.items():
        best = min(times, key=lambda where: times[where])
        told = ", ".join(f"{where} {s * 1e3:.3g} ms" for where, s in times.items())
        lines.append(f"  {what} on NumPy arrays, {STEPS} steps: {best} ({told})")
    return lines
