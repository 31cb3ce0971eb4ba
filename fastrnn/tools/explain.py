"""Why a call runs where it does: the device, and the path of each pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastrnn import check
from fastrnn.device import kernels_of
from fastrnn.models import auto
from fastrnn.models.recurrent import Recurrent
from fastrnn_kernels.cpu import device as cpu
from fastrnn_kernels.cpu.device import Rows, Weights
from fastrnn_kernels.cpu.sequence import plan


@dataclass(frozen=True)
class Path:
    """A way that a pass could take.

    seconds: of a time step, in what estimates, or measurements, have of it; None if excluded.
    excluded: what rules it out, or empty.
    """

    name: str
    seconds: float | None
    measured: bool
    excluded: str = ""

    def __str__(self) -> str:
        if self.excluded:
            return f"not {self.name}: {self.excluded}"
        if self.seconds is None:
            return self.name
        how = "measured" if self.measured else "estimated"
        return f"{self.name}: {self.seconds * 1e6:.2f} µs a step, {how}"


@dataclass(frozen=True)
class PassExplanation:
    """One layer's forward or backward pass, of all directions: its path, and the others."""

    layer: int
    backward: bool
    path: str
    reason: str
    others: tuple[Path, ...] = ()

    def __str__(self) -> str:
        what = "backward" if self.backward else "forward"
        lines = [f"layer {self.layer} {what}: {self.path}, {self.reason}"]
        return "\n".join([*lines, *(f"    {other}" for other in self.others)])


@dataclass(frozen=True)
class Explanation:
    """Where a call runs, and why; `str` tells it."""

    device: str
    reason: str
    passes: tuple[PassExplanation, ...]

    def __str__(self) -> str:
        lines = [f"on {self.device}: {self.reason}"]
        return "\n".join([*lines, *(f"  {one}".replace("\n", "\n  ") for one in self.passes)])


def explain(layer: Recurrent, x: Any, *, training: bool = False) -> Explanation:
    """Tell where a call of a layer or cell runs, on which paths, and why; nothing is run.

    x: the input, as the layer takes it. training: of `forward` and `backward`, not of a plain
    call.

    What was not measured yet (a call does so where it has to) is told as it is estimated.
    Raises TypeError or ValueError for wrong arguments.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer is a {type(layer).__name__}, wanted a recurrent layer or cell")
    check.flag("training", training)
    array, T, B, _ = layer._checked_input(x)
    on_gpu = not check.on_host(array)
    version = layer._version
    if version.device == "auto":
        found = auto.decide(layer, version.weights, T, B, training, on_gpu, measuring=False)
    else:
        found = auto.Decision(version.device, f"the layer was made with device={version.device!r}")
    kernels = kernels_of(found.device)
    weights = layer._weights_for(version, kernels)
    D = getattr(layer, "directions", 1)
    tell = _on_cpu if kernels is cpu else _on_gpu
    passes = tuple(
        one
        for backward in ((False, True) if training else (False,))
        for one in tell(weights, D, T, B, backward)
    )
    return Explanation(found.device, found.reason, passes)


def _on_cpu(
    weights: Sequence[Weights], D: int, T: int, B: int, backward: bool
) -> Iterator[PassExplanation]:
    divide = plan.backward_plan if backward else plan.forward_plan
    for k in range(0, len(weights), D):
        found = divide(weights[k], Rows.whole(T, B), D)
        if found.team:
            path, reason = "team", f"{found.count} threads, each with units of its own"
        else:
            path, reason = "rows", f"a thread to each piece of the batch, {found.count} in all"
        yield PassExplanation(k // D, backward, path, reason)


def _on_gpu(
    weights: Sequence[Any], D: int, T: int, B: int, backward: bool
) -> Iterator[PassExplanation]:
    choice = import_module("fastrnn_kernels.cuda.choice")
    for k in range(0, len(weights), D):
        found = choice.choose(weights[k], B, backward)
        paths = tuple(
            Path(
                one.path,
                None if one.excluded else one.measured if found.measured else one.estimated,
                found.measured,
                one.excluded,
            )
            for one in found.candidates
        )
        division = found.chosen.division
        reason = "any shape"
        if division is not None:
            clusters = f" in clusters of {division.cluster}" if division.cluster > 1 else ""
            reason = (
                f"R on chip, {division.blocks} blocks{clusters} of {division.threads} threads and "
                f"{division.shared_bytes:,} bytes of shared memory"
            )
        yield PassExplanation(k // D, backward, found.chosen.path, reason, paths)
