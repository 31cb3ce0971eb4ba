"""Why a call runs where it does: the device, and the path of each pass."""

from dataclasses import dataclass
from typing import Any

from fastrnn import check
from fastrnn.device import kernels_of
from fastrnn.models import auto
from fastrnn.models.recurrent import Recurrent
from fastrnn_kernels.device import Path


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
    passes = tuple(
        PassExplanation(k // D, backward, *kernels.route(weights[k], T, B, D, backward))
        for backward in ((False, True) if training else (False,))
        for k in range(0, len(weights), D)
    )
    return Explanation(found.device, found.reason, passes)
