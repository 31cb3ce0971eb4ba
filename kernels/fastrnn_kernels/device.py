"""The contract of a device: what `fastrnn` asks of the modules `cpu.device` and `cuda.device`.

Both have these names with these meanings, so that layers, adapters and tools need not know where a
call runs. mypy holds the modules against it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from fastrnn_kernels.draws import Draws
from fastrnn_kernels.gradients import Clip, Gradients
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import Tape
from fastrnn_kernels.weights import Weights

Array = Any  # of the device's own kind


class Path(NamedTuple):
    """A way that a pass could take.

    seconds: of a time step, in what estimates, or measurements, have of it; None where nobody
        estimates it, or it is excluded.
    excluded: what rules it out, or empty.
    """

    name: str
    seconds: float | None = None
    measured: bool = False
    excluded: str = ""

    def __str__(self) -> str:
        """A line."""
        if self.excluded:
            return f"not {self.name}: {self.excluded}"
        if self.seconds is None:
            return self.name
        how = "measured" if self.measured else "estimated"
        return f"{self.name}: {self.seconds * 1e6:.2f} µs a step, {how}"


class Route(NamedTuple):
    """The path that a pass takes, why, and those that it was chosen from, if it was."""

    path: str
    reason: str
    paths: tuple[Path, ...] = ()


class Forward(Protocol):
    """A forward pass: the job that does it, its multiply-adds, and what backward needs of it."""

    @property
    def job(self) -> Any: ...  # noqa: D102
    @property
    def work(self) -> float: ...  # noqa: D102
    @property
    def tape(self) -> Tape[Any] | None: ...  # noqa: D102


class Backward(Protocol):
    """A backward pass through time: its job, its multiply-adds, `finish(onto)` for the gradients.

    Where a row has ended that of x has anything, on a GPU zeros. It is added to `onto`, in place,
    if that is not None.
    """

    @property
    def job(self) -> Any: ...  # noqa: D102
    @property
    def work(self) -> float: ...  # noqa: D102
    @property
    def finish(self) -> Callable[[Array | None], Gradients]: ...  # noqa: D102


class Device(Protocol):
    """The kernels of a device.

    NAME: "cpu" or "cuda". ON_HOST: whether its arrays are NumPy's. INFERENCE: types to compute in
    that keep no tape. xp: its module of arrays, with NumPy's names. Weights, Tape: its own classes
    of those.
    """

    NAME: str
    ON_HOST: bool
    INFERENCE: tuple[str, ...]

    @property
    def xp(self) -> Any: ...  # noqa: D102
    @property
    def Weights(self) -> Callable[..., Weights]: ...  # noqa: D102, N802
    @property
    def Tape(self) -> Callable[..., Tape[Any]]: ...  # noqa: D102, N802

    def take(self, array: Any, name: str = ..., copy: bool = ...) -> Array:
        """An array as kernels take it: here, C-contiguous; copied if it is not, or if asked to."""

    def give(self, array: Array, host: bool) -> Array:
        """A result where the caller's arrays are: on the host, or here."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array that is to be written."""

    def start_forward(
        self, weights: Any, x: Array, start_h: Array, start_rest: Array, final_h: Array,
        final_rest: Array, rows: Rows, y: Array, y_at: int, *, reverse: bool = ...,
        reset: Any = ..., taping: bool = ..., share: int = ..., draws: Draws | None = ...,
    ) -> Forward:  # fmt: skip
        """Prepare a forward pass of one direction of one layer; `share` will run together.

        draws: what is drawn, where the cell has drawn values or h a mask.
        """

    def start_backward(
        self, tape: Any, dy: Array, y_at: int, d_final_h: Array, d_final_rest: Array, *,
        share: int = ..., inputs: bool = ..., clip: Clip = ...,
    ) -> Backward:  # fmt: skip
        """Prepare its backward pass: dy (T, B, Y), read from column y_at on.

        inputs: whether the gradient of x is wanted. clip: how that of states is clipped,
        on the CPU.
        """

    def run(self, jobs: Any, work: float) -> None:
        """Run the jobs of passes, of all directions of a layer; on the CPU also of many models."""

    def finish(self, passes: Any, onto: Sequence[Array | None]) -> list[Gradients]:
        """The gradients of backward passes of one direction that have run, as each's `finish`."""

    def wait(self) -> None:
        """Wait for what was begun."""

    def room(self) -> tuple[int, int] | None:
        """Bytes of its memory that are free, and all; None where the system has the say."""

    def check_forward(
        self, weights: Any, D: int, T: int, B: int, taping: bool, copied: int,
        what: Callable[[], str],
    ) -> None:  # fmt: skip
        """Raise MemoryError, with the bytes needed and there, where a forward pass cannot fit."""

    def check_backward(self, tapes: Any, D: int, what: Callable[[], str]) -> None:
        """Raise MemoryError, with the bytes needed and there, where a backward pass cannot fit."""

    def scratch_bytes(self, weights: Any, T: int, B: int, share: int) -> int:
        """Bytes that a forward pass takes beside its results and tape."""

    def tape_bytes(self, weights: Any, T: int, B: int) -> int:
        """Bytes of the tape of a forward pass, without its input."""

    def route(self, weights: Any, T: int, B: int, share: int, backward: bool) -> Route:
        """The path that a pass over whole sequences takes."""


class TunedDevice(Device, Protocol):
    """A device on which times that were measured choose the path of a pass."""

    def only(self, path: str) -> Any:
        """A context in which passes take one path."""

    def keep(self, weights: Any, B: int, backward: bool, seconds: Any) -> bool:
        """Keep measured seconds a step, by path; whether they outlive the process."""


def possible(paths: Sequence[Path]) -> list[str]:
    """The names of the paths that are not ruled out."""
    return [path.name for path in paths if not path.excluded]
