"""One random problem on one path against float64 on the CPU, twice for the same bits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from bench.gpu import truth
from fastrnn.device import GPU_COMPUTE, tf32
from fastrnn.models.classes import layer_of
from fastrnn_kernels.cuda import choice
from fastrnn_kernels.cuda.launch.arrays import xp

CELLS: dict[str, Callable[..., Any]] = {name: partial(layer_of, name) for name in truth.STEPS}
#: Types that products are computed in: tf32 is that of a float32 layer where it is allowed.
TYPES = (*GPU_COMPUTE, "tf32")
#: Largest error of an array over its largest value. float32 as in `fastrnn bench`, with room
#: for the sums of thousands of products; the others round the products' operands to 10, 10
#: and 7 bits, an error that some ten dependent steps add up.
TOLERANCE = {
    "float32": 5e-5, "float64": 1e-10, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 8e-2,
}  # fmt: skip


class Case(NamedTuple):
    """A problem: sizes T, B, I, H, what the layer is, and the path that runs it."""

    cell: str
    dtype: str
    shape: tuple[int, int, int, int]
    path: str
    ragged: bool = False
    resets: bool = False
    bidirectional: bool = False
    proj_size: int = 0
    stream: bool = False


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is to be written holds NaN until it is."""
    plain = xp.empty

    def empty(*args: Any, **kwargs: Any) -> Any:
        array = plain(*args, **kwargs)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    with mock.patch.object(xp, "empty", empty):
        yield


def _error(found: Any, wanted: Any) -> float:
    scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
    return float(np.max(np.abs(found - wanted), initial=0.0)) / scale


class Problem:
    """A layer on the GPU, random arrays for it, and what float64 makes of them."""

    def __init__(self, case: Case, seed: int) -> None:
        T, B, I, H = case.shape
        self.case, random = case, np.random.default_rng(seed)
        options: dict[str, Any] = {"proj_size": case.proj_size} if case.proj_size else {}
        dtype = "float32" if case.dtype == "tf32" else case.dtype
        self.layer = CELLS[case.cell](
            I, H, device="cuda", dtype=dtype, seed=seed, bidirectional=case.bidirectional,
            **options,
        )  # fmt: skip
        D, P = 1 + case.bidirectional, case.proj_size or H
        widths = (P, H) if case.cell == "lstm" else (P,)

        def normal(*shape: int) -> Any:
            # As the layer has them: else the comparison is of other inputs.
            return random.standard_normal(shape).astype(self.layer.dtype)

        self.x, self.dy = normal(T, B, I), normal(T, B, D * P)
        self.start = tuple(normal(D, B, width) for width in widths)
        self.d_final = tuple(normal(D, B, width) for width in widths)
        self.lengths = random.integers(0, T + 1, B) if case.ragged else None
        self.reset = random.random((T, B)) < 0.3 if case.resets else None

    def wanted(self) -> dict[str, Any]:
        """All outputs and gradients by name, from float64 NumPy."""
        T, B = self.x.shape[:2]
        lengths = np.full(B, T) if self.lengths is None else self.lengths
        reset = np.zeros((T, B), bool) if self.reset is None else self.reset
        named: dict[str, Any] = {"y": [], "dx": 0}
        P = self.start[0].shape[2]
        for d in range(1 + self.case.bidirectional):
            suffix = "_l0" + "_reverse" * d
            w = {
                name.removesuffix(suffix): value.astype(float)
                for name, value in self.layer.parameters.items()
                if name.endswith(suffix)
            }
            start = tuple(part[d].astype(float) for part in self.start)
            found = truth.run(
                self.case.cell, w, self.x.astype(float), start, lengths, reset, d == 1
            )
            dy = self.dy[..., d * P : (d + 1) * P].astype(float)
            dx, d_start, gradients = found.backward(
                dy, tuple(part[d].astype(float) for part in self.d_final)
            )
            named["y"].append(found.y)
            named["dx"] = named["dx"] + dx
            for k, (end, begin) in enumerate(zip(found.final, d_start, strict=True)):
                named.setdefault(f"final {k}", []).append(end)
                named.setdefault(f"start {k}", []).append(begin)
            named |= {name + suffix: value for name, value in gradients.items()}
        for name in named:
            if isinstance(named[name], list):
                join = np.concatenate if name == "y" else np.stack
                named[name] = join(named[name], **({"axis": -1} if name == "y" else {}))
        return named

    def found(self) -> dict[str, Any]:
        """The same from the GPU."""

        def state(parts: Any) -> Any:
            return parts if self.case.cell == "lstm" else parts[0]

        def parts(given: Any) -> Any:
            return given if isinstance(given, tuple) else (given,)

        call = self.x, state(self.start), self.lengths, self.reset
        y, final, tape = self.layer.forward(*call)
        back = self.layer.backward(tape, self.dy, state(self.d_final))
        named = {"y": y, "dx": back.x, **back.parameters}
        named |= {f"final {k}": part for k, part in enumerate(parts(final))}
        return named | {f"start {k}": part for k, part in enumerate(parts(back.state))}


def compare(case: Case, seed: int) -> dict[str, Any]:
    """Errors of a case on its path, and whether a second run gives the same bits."""
    problem = Problem(case, seed)
    wanted = problem.wanted()
    with choice.only(case.path), tf32(case.dtype == "tf32"), poisoned():
        first, second = problem.found(), problem.found()
    return _judged(case, first, second, wanted)


def _judged(
    case: Case, first: dict[str, Any], second: dict[str, Any], wanted: dict[str, Any]
) -> dict[str, Any]:
    errors = {name: _error(array, wanted[name]) for name, array in first.items()}
    same = all(np.array_equal(array, second[name]) for name, array in first.items())
    worst = max(errors, key=lambda name: errors[name] if errors[name] >= 0 else np.inf)
    good = same and all(error <= TOLERANCE[case.dtype] for error in errors.values())
    told = {"good": bool(good), "same_bits": same, "worst": worst, "error": errors[worst]}
    return {**case._asdict(), **told}


def compare_stream(case: Case, seed: int) -> dict[str, Any]:
    """A stream's steps, twice, against the same."""
    problem = Problem(case._replace(ragged=False, resets=False), seed)
    problem.start = tuple(np.zeros_like(part) for part in problem.start)
    T, B = problem.x.shape[:2]
    try:
        stream = problem.layer.stream(batch_size=B)
    except RuntimeError as error:
        if "streams run on the CPU so far" not in str(error):
            raise
        raise choice.DoesNotFitError(str(error)) from None

    def found() -> dict[str, Any]:
        stream.reset()
        steps = []
        for t in range(T):
            y = stream.step(xp.asarray(problem.x[t]) if B > 1 else xp.asarray(problem.x[t, 0]))
            steps.append(np.array(y.get() if hasattr(y, "get") else y).reshape(B, -1))
        return {"y": np.stack(steps)}

    return _judged(case, found(), found(), problem.wanted())
