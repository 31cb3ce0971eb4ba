"""Which path a pass takes: that of the least time for a step, estimated, or measured here.

A cost model of few constants orders the paths; where `fastrnn tune` has measured all that a
class of shapes can take, on this kind of GPU, its times do.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from numba import config, cuda

from fastrnn_kernels.cache.disk import user_folder
from fastrnn_kernels.cache.memo import Memo, versions
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cuda.data import passes
from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.isa.rounding import PER_WORD
from fastrnn_kernels.cuda.launch.errors import TooManyBlocksError
from fastrnn_kernels.cuda.launch.launch import refuse_capture
from fastrnn_kernels.cuda.resident import path as resident
from fastrnn_kernels.cuda.resident.division import Division, Gpu, all_blocks, one_block
from fastrnn_kernels.cuda.stepwise import path as stepwise
from fastrnn_kernels.device import Path, Route

PATHS = ("block", "grid", "stepwise")
#: Seconds of a launch in a graph that is replayed. Assumed, not yet measured.
NODE_S = 1.5e-6
#: Multiply-adds a second of one multiprocessor in a library's product of float32, those of
#: tensor cores over that, and bytes a second at which all read its weights. Assumed, too.
PRODUCT_RATE, TENSOR_GAIN, CACHE_RATE = 1.7e11, {"tf32": 4, "bfloat16": 8, "float16": 8}, 5e12

#: Passes whose blocks the driver would not run at once, on a path alone and in both directions: a
#: share of the GPU is another's.
_refused: set[tuple["Problem", str]] = set()
_refused_both: set["Problem"] = set()
_only: ContextVar[str] = ContextVar("path", default="")


class DoesNotFitError(Exception):
    """A path that was asked for does not take a shape on this GPU."""


class Candidate(NamedTuple):
    """A path for a pass: its seconds a step, or what rules it out."""

    path: str
    division: Division | None
    estimated: float
    measured: float | None
    excluded: str = ""


class Choice(NamedTuple):
    """The path of a pass, and those that it was chosen from."""

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    measured: bool  # whether measured times decided


class Problem(NamedTuple):
    """What a choice depends on."""

    cell: Cell
    compute: str
    item: int  # bytes of a value
    H: int
    B: int
    projected: bool
    backward: bool

    @property
    def tensor_type(self) -> str:
        """The type that tensor cores multiply, or empty."""
        return self.compute if self.compute in PER_WORD else ""

    def name(self, path: str) -> str:
        """The class of shapes, on a path, as its measured time is kept: sizes to powers of 2."""
        H, B = (1 << max(0, size - 1).bit_length() for size in (self.H, self.B))
        what = "backward" if self.backward else "forward"
        return f"{path} {self.cell.name} {self.compute} {what} H={H} B={B}"


@cache
def gpu() -> Gpu:
    """The current GPU; the simulator runs one block at a time."""
    if config.ENABLE_CUDASIM:
        return Gpu(1, 48 << 10)
    device = cuda.get_current_device()
    return Gpu(
        device.MULTIPROCESSOR_COUNT,
        device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        tuple(device.compute_capability),
    )


@cache
def memo() -> Memo:
    """What was measured on this kind of GPU."""
    name = "simulator" if config.ENABLE_CUDASIM else str(cuda.get_current_device().name)
    machine = {"gpu": name, "multiprocessors": str(gpu().multiprocessors), **versions()}
    return Memo(machine, user_folder())


#: Choices that are kept for weights, for as many batches, at most.
MOST_KNOWN = 256
#: What was chosen, by weights, for rows and passes on a GPU.
_chosen: "WeakKeyDictionary[Weights, dict[tuple[int, bool, Gpu], Choice]]" = WeakKeyDictionary()


def forget() -> None:
    """Choose anew: what was measured has changed."""
    _chosen.clear()


@contextmanager
def only(path: str) -> Iterator[None]:
    """Have passes take one path, in this thread; they raise DoesNotFitError where it does not fit.

    An empty name leaves the choice.
    """
    token = _only.set(path)
    try:
        yield
    finally:
        _only.reset(token)


def problem_of(weights: Weights, B: int, backward: bool) -> Problem:
    """What the choice for a pass depends on."""
    item = weights.dtype.itemsize
    compute = weights.compute or str(weights.dtype)
    projected = weights.w_hr is not None
    return Problem(weights.cell, compute, item, weights.hidden_size, B, projected, backward)


def choose(weights: Weights, B: int, backward: bool) -> Choice:
    """The path of a pass over B rows, and why."""
    here = gpu()
    known = _chosen.setdefault(weights, {})
    key = B, backward, here
    found = known.get(key)
    if found is None:
        if len(known) >= MOST_KNOWN:
            known.clear()
        found = known[key] = _choose(problem_of(weights, B, backward), here)
    return found


def route(weights: Weights, T: int, B: int, share: int, backward: bool) -> Route:
    """The path of a pass, why, and the others, as `explain` tells them."""
    found = choose(weights, B, backward)
    paths = tuple(
        Path(
            one.path,
            None if one.excluded else one.measured if found.measured else one.estimated,
            found.measured,
            one.excluded,
        )
        for one in found.candidates
    )
    division, reason = found.chosen.division, "any shape"
    if division is not None:
        clusters = f" in clusters of {division.cluster}" if division.cluster > 1 else ""
        reason = (
            f"R on chip, {division.blocks} blocks{clusters} of {division.threads} threads and "
            f"{division.shared_bytes:,} bytes of shared memory"
        )
    return Route(found.chosen.path, reason, paths)


def keep(weights: Weights, B: int, backward: bool, seconds: Mapping[str, float]) -> bool:
    """Keep measured seconds a step, by path, and choose by them; whether a file has them too."""
    one = problem_of(weights, B, backward)
    kept = memo().put({one.name(path): taken for path, taken in seconds.items()})
    forget()
    return kept


def division_of(weights: Weights, B: int, backward: bool) -> Division | None:
    """How a resident pass is divided, or None for one step by step.

    Raises DoesNotFitError inside of `only`.
    """
    found, path = choose(weights, B, backward), _only.get()
    if not path:
        return found.chosen.division
    one = next(one for one in found.candidates if one.path == path)
    if one.excluded:
        raise DoesNotFitError(f"H={weights.hidden_size}, B={B}, path {path}: {one.excluded}")
    return one.division


def _choose(one: Problem, here: Gpu) -> Choice:
    found = tuple(_candidate(one, here, path) for path in PATHS)
    possible = [candidate for candidate in found if not candidate.excluded]
    known = {
        candidate.path: candidate.measured
        for candidate in possible
        if candidate.measured is not None
    }
    measured = len(known) == len(possible)
    best = min(possible, key=lambda c: known[c.path] if measured else c.estimated)
    return Choice(best, found, measured)


def _candidate(one: Problem, here: Gpu, path: str) -> Candidate:
    measured = memo().get(one.name(path))
    if path == "stepwise":
        return Candidate(path, None, _stepwise_s(one, here), measured)
    excluded = _exclusion(one)
    if excluded:
        return Candidate(path, None, 0.0, None, excluded)
    divide = one_block if path == "block" else all_blocks
    found = divide(one.cell, one.H, one.B, one.item, here, one.backward, one.tensor_type)
    if found is None:
        size = one.cell.GH * one.H * one.H * one.item
        one_or_all = "a" if path == "block" else str(here.multiprocessors)
        excluded = (
            f"R ({size:,} bytes) and what a step needs do not fit {one_or_all} "
            f"multiprocessor{'s' * (path == 'grid')}, {here.shared_bytes:,} bytes shared by a block"
        )
        if path == "grid" and here.multiprocessors == 1:
            excluded = "there is one multiprocessor"
        elif path == "grid" and one.H <= 1:
            excluded = "one unit cannot be shared"
        return Candidate(path, None, 0.0, None, excluded)
    if (one, path) in _refused:
        return Candidate(path, None, 0.0, None, "the driver cannot run all its blocks at once")
    return Candidate(path, found, found.seconds(one.B), measured)


def _exclusion(one: Problem) -> str:
    """What keeps R from staying on chip, whatever its size."""
    if one.cell.late:
        return f"gate {one.cell.late[0]} waits for others, with a product of its own"
    if one.cell.D:
        return "values are drawn at each step"
    if not one.cell.GH:
        return "no gate has a product with h"
    if one.projected:
        return "the projection is a product of its own at each step"
    return "" if one.B else "there are no rows"


def _work(one: Problem) -> float:
    """Multiply-adds with R of a step of a row, as many of float32 take as long."""
    return one.cell.GH * one.H * one.H * one.item / 4


def _stepwise_s(one: Problem, here: Gpu) -> float:
    launches = 2 + 2 * bool(one.cell.late) + 2 * one.projected
    rate = PRODUCT_RATE * TENSOR_GAIN.get(one.compute, 1)
    product = one.B * _work(one) / here.multiprocessors / rate
    return launches * NODE_S + max(product, 4 * _work(one) / CACHE_RATE)


def division_of_both(weights: Weights, B: int, backward: bool) -> Division | None:
    """How both directions run in one launch, half of the multiprocessors each.

    None where two launches, one after the other, are quicker.
    """
    alone, here = division_of(weights, B, backward), gpu()
    one = problem_of(weights, B, backward)
    if alone is None or here.multiprocessors < 2 or one in _refused_both:
        return None
    divided = all_blocks if alone.gridded else one_block
    half = here._replace(multiprocessors=here.multiprocessors // 2)
    found = divided(one.cell, one.H, B, one.item, half, backward, one.tensor_type)
    return found if found and found.seconds(B) < 2 * alone.seconds(B) else None


def run_forward(*given: passes.ForwardArguments) -> None:
    """Run forward passes, of one direction of a layer or of both, on the path that suits them."""
    refuse_capture()
    for one in given:
        passes.prepare_forward(one)
    if not given[0].rows.longest:  # there is no step
        return
    first = given[0]
    if first.draws is not None:
        _run_by_steps(given, [one.weights for one in given], stepwise.forward)
        return
    _run(given, first.weights, first.rows.B, False, resident.forward, stepwise.forward)


def run_backward(*given: passes.BackwardArguments) -> None:
    """Run backward passes, of one direction of a layer or of both, on the path that suits them."""
    refuse_capture()
    tape = given[0].tape
    if tape.h_mask is not None or tape.weights.cell.D:
        _run_by_steps(given, [one.tape.weights for one in given], stepwise.backward)
        return
    _run(given, tape.weights, tape.rows.B, True, resident.backward, stepwise.backward)


def _run_by_steps(
    given: tuple[Any, ...], weights: Sequence[Weights], by_steps: Callable[[Any], None]
) -> None:
    """The only path of passes in which something is drawn."""
    try:
        for one in given:
            by_steps(one)
    finally:
        for of_pass in weights:
            of_pass.note()


def _run(
    given: tuple[Any, ...],
    weights: Weights,
    B: int,
    backward: bool,
    on_chip: Callable[..., None],
    by_steps: Callable[[Any], None],
) -> None:
    try:
        _run_on_paths(given, weights, B, backward, on_chip, by_steps)
    finally:
        for one in given:
            (one.tape.weights if backward else one.weights).note()


def _run_on_paths(
    given: tuple[Any, ...],
    weights: Weights,
    B: int,
    backward: bool,
    on_chip: Callable[..., None],
    by_steps: Callable[[Any], None],
) -> None:
    if len(given) == 2:
        both = division_of_both(weights, B, backward)
        if both is not None:
            try:
                on_chip(*given, division=both)
                return
            except TooManyBlocksError:  # nothing has run; one after the other may
                _refused_both.add(problem_of(weights, B, backward))
    for one in given:
        while (division := division_of(weights, B, backward)) is not None:
            try:
                on_chip(one, division=division)
                break
            except TooManyBlocksError:  # nothing has run; the next best path may
                if _only.get():
                    raise
                path = "grid" if division.gridded else "block"
                _refused.add((problem_of(weights, B, backward), path))
                forget()
        else:
            by_steps(one)
