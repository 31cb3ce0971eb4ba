"""Where the time of a step goes: watches around the places where fastrnn takes over.

They cost about a microsecond each time, so they are on apart from what is timed.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any
from unittest import mock

FORWARD, BACKWARD, WEIGHT_GRADIENTS = "forward", "backward", "weight gradients"
PACKING, ADAPTER, FRAMEWORK = "packing", "adapter", "framework"
#: Packing: whether weights have changed, and panels of those that have. Adapter: checks, layouts,
#: copies, autograd's nodes. Framework: all that is not fastrnn's. The backward pass of a small call
#: that is prepared has the weights' gradients in it, as they are made in one call.
SHARES = (PACKING, FORWARD, BACKWARD, WEIGHT_GRADIENTS, ADAPTER, FRAMEWORK)

_START, _PACKED = "fastrnn_kernels.cpu.sequence.start", "fastrnn_kernels.cpu.product.weights"
_DEVICE = "fastrnn_kernels.cpu.device"
#: Module, what in it, and to whom its time counts; None: to the pass that was started last.
_COMMON: tuple[tuple[str, str, str | None], ...] = (
    (_DEVICE, "start_forward", FORWARD),
    (_DEVICE, "start_backward", BACKWARD),
    (_DEVICE, "run", None),
    (_START, "gradients", WEIGHT_GRADIENTS),
    (_PACKED, "Weights._pack_forward", PACKING),
    (_PACKED, "Weights._pack_backward", PACKING),
)
_OF: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    "torch": (
        ("fastrnn.torch.packed", "Packed.packs", PACKING),
        ("fastrnn.torch.prepared", "Packing.pack", PACKING),
        ("fastrnn.torch.prepared", "Prepared.forward", FORWARD),
        ("fastrnn.torch.prepared", "Prepared.backward", BACKWARD),
        ("fastrnn.torch.layers", "Layer._run", ADAPTER),
        ("fastrnn.torch.call", "ModuleCall.backward", ADAPTER),
    ),
    "keras": (
        ("fastrnn.keras.weights", "Packed.__call__", PACKING),
        ("fastrnn.keras.backends.torch", "backward", ADAPTER),
        ("fastrnn.keras.layers", "sequence", ADAPTER),
    ),
}


class Watches:
    """Seconds by share; those of what is called inside of a watched place are not its own."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(SHARES, 0.0)
        self._open: list[str] = []
        self._since = 0.0
        self._pass = FORWARD

    def _switch(self) -> None:
        now = perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, share: str) -> Iterator[None]:
        """Count the time in this context to a share."""
        if self._open:
            self._switch()
        self._since = perf_counter()
        self._open.append(share)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def around(self, function: Callable[..., Any], share: str | None) -> Callable[..., Any]:
        """The function, watched."""

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if share in (FORWARD, BACKWARD):
                self._pass = share
            with self.watching(share or self._pass):
                return function(*args, **kwargs)

        return watched


def _patched(watches: Watches, module: str, name: str, share: str | None) -> Any:
    owner: Any = importlib.import_module(module)
    *outer, attribute = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return mock.patch.object(owner, attribute, watches.around(getattr(owner, attribute), share))


def measure(framework: str, run: Callable[[], Any], steps: int) -> dict[str, float]:
    """What part of the time of so many steps each share has; their sum is 1."""
    watches = Watches()
    with ExitStack() as stack:
        for place in (*_COMMON, *_OF[framework]):
            stack.enter_context(_patched(watches, *place))
        run()
        watches.seconds = dict.fromkeys(SHARES, 0.0)
        with watches.watching(FRAMEWORK):
            for _ in range(steps):
                run()
    whole = sum(watches.seconds.values())
    return {share: seconds / whole for share, seconds in watches.seconds.items()}
