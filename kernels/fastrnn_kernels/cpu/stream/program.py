"""Streams as compiled functions: stages one after the other.

    step(program, memory, x, y)
    team(program, memory, x, y, steps, member, members, record)

Both take addresses. The program's table begins with the functions' own, and from WEIGHTS on
has those of the stages' weights. Memory is a header of HEADER bytes, whose first word is the
turn, and then the stages' values. x (steps, B, I) and y (steps, B, O) are C-contiguous; y may
be x, where O is I.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import kernel, native_address
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE, Array, on_line
from fastrnn_kernels.cpu.isa.address import moved, set_word, values, word
from fastrnn_kernels.cpu.isa.denormals import flush, restore
from fastrnn_kernels.cpu.isa.host import suffix
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import lanes_of
from fastrnn_kernels.cpu.isa.vector import load, store_part
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.storage import stored
from fastrnn_kernels.cpu.product.weights import Weights, panels_of
from fastrnn_kernels.cpu.stream.cell_stage import CellStage
from fastrnn_kernels.cpu.stream.linear_stage import LinearStage
from fastrnn_kernels.cpu.stream.stage import FLOATS

#: Of a program's table: its functions, the second 0 where it has none, and its weights.
STEP, TEAM, WEIGHTS = 0, 1, 2
#: Bytes of memory before the values.
HEADER = CACHE_LINE

Stage = CellStage | LinearStage

SIGNATURE, _TEAM_SIGNATURE = (types.int64,) * 4, (types.int64,) * 8
#: Compiled functions by the stages' keys; machine code lives as long as what compiled it.
_compiled: dict[str, tuple[int, Any]] = {}


def _places(stages: Sequence[Stage]) -> Iterator[tuple[Stage, int, int]]:
    """Each stage, the first slot of its weights, and where its values begin."""
    slots = accumulate((stage.SLOTS for stage in stages), initial=WEIGHTS)
    return zip(stages, slots, value_offsets(stages), strict=False)


def value_offsets(stages: Sequence[Stage]) -> list[int]:
    """Where each stage's values begin behind the header, and their end."""
    return list(accumulate((stage.size for stage in stages), initial=0))


def cleared(stages: Sequence[Stage]) -> list[tuple[int, int]]:
    """The runs of values behind the header that a reset zeroes: all but constant states."""
    offsets = value_offsets(stages)
    runs, first = [], 0
    for stage, at in zip(stages, offsets, strict=False):
        begin, end = (at + part for part in stage.constant)
        if begin < end:
            runs.append((first, begin))
            first = end
    return [*runs, (first, offsets[-1])]


def _stacked(stages: list[tuple[Stage, int, int]], team: bool) -> Any:
    """One step of all stages, each reading what the one before has written."""
    stage, slot, at = stages[0]
    if len(stages) == 1:
        return stage.step(slot, at, team)
    half = len(stages) // 2  # so that calls nest no deeper than they have to
    first, then = _stacked(stages[:half], team), _stacked(stages[half:], team)
    stage, slot, at = stages[half - 1]
    step, each = stage.out_step, stage.B * stage.out_step

    @inlined
    def both(program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        phase = first(program, memory, x, x_step, turn, member, members, record, phase)
        x = moved(memory, at + (1 - turn) * each)
        return then(program, memory, x, step, turn, member, members, record, phase)

    return both


def _whole_step(stages: Sequence[Stage], team: bool) -> Any:
    """One step from x to y, and the turn that follows."""
    first, last = stages[0], stages[-1]
    B, I, O, out_step = first.B, first.I, last.out_size, last.out_step
    W, out_at = lanes_of(FLOATS[first.dtype]), value_offsets(stages)[-2]
    through = _stacked(list(_places(stages)), team)
    load_one, store_one = load(1), store_part(1)

    @inlined
    def step(program, memory, x, y, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        phase = through(program, memory, x, I, turn, member, members, record, phase)
        if member == 0:
            for row in range(B):
                for u in range(0, O, W):
                    value = load_one(memory, out_at + ((1 - turn) * B + row) * out_step + u, 0)
                    store_one(y, row * O + u, 0, O - u, value)
        return phase

    return step


def step_function(stages: Sequence[Stage]) -> Any:
    """The function that runs a step on the calling thread."""
    one_step, pointer = _whole_step(stages, False), values(FLOATS[stages[0].dtype])

    def step(program, memory, x, y):  # type: ignore[no-untyped-def]
        mode, turn = flush(), word(memory, 0)
        one_step(program, pointer(memory + HEADER), pointer(x), pointer(y), turn, 0, 1, 0, 0)
        set_word(memory, 0, 1 - turn)
        restore(mode)

    return step


def _team_function(stages: Sequence[Stage]) -> Any:
    """The function of a team's members, for any number of steps."""
    one_step, pointer = _whole_step(stages, True), values(FLOATS[stages[0].dtype])
    inputs, outputs = stages[0].B * stages[0].I, stages[0].B * stages[-1].out_size

    def team(program, memory, x, y, steps, member, members, record):  # type: ignore[no-untyped-def]
        mode, turn, phase = flush(), word(memory, 0), 0
        for t in range(steps):
            phase = one_step(
                program, pointer(memory + HEADER), moved(pointer(x), t * inputs),
                moved(pointer(y), t * outputs), turn, member, members, record, phase,
            )  # fmt: skip
            turn = 1 - turn
        if member == 0:
            set_word(memory, 0, turn)
        restore(mode)

    return team


def _address(stages: Sequence[Stage], team: bool) -> int:
    """Where the compiled function of these stages begins."""
    key = "-".join(["team" if team else "step", *(stage.key for stage in stages)]) + suffix()
    if key not in _compiled:
        name = f"stream-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
        sizes = "; ".join(stage.words for stage in stages)
        words = f"a stream's step{' for several threads' if team else ''} ({sizes})"
        function = kernel(name, words)((_team_function if team else step_function)(stages))
        signature = _TEAM_SIGNATURE if team else SIGNATURE
        _compiled[key] = native_address(function, signature), function
    return _compiled[key][0]


@dataclass(frozen=True, eq=False)
class Program:
    """Stages with their weights, ready to run; any number of streams may share it."""

    stages: tuple[Stage, ...]
    table: NDArray[np.int64]
    weights: tuple[Array, ...]  # which the table points to
    cleared: NDArray[np.int64]  # (runs, 2): the first and the end of each, as `cleared` has them

    @classmethod
    def of(cls, stages: Sequence[tuple[Stage, tuple[Array, ...]]], team: bool) -> "Program":
        """The program of stages with their weights, in the order of their slots.

        team: whether it has a function for teams, too.
        """
        weights = tuple(array for _, arrays in stages for array in arrays)
        addresses = [array.ctypes.data for array in weights]
        alone = tuple(stage for stage, _ in stages)
        functions = _address(alone, False), _address(alone, True) if team else 0
        table = np.array([*functions, *addresses], np.int64)
        return cls(alone, table, weights, np.array(cleared(alone), np.int64))

    def new_memory(self) -> Array:
        """Memory of a new stream, its states zeros; it begins on a cache line."""
        dtype = np.dtype(self.stages[0].dtype)
        line, header = CACHE_LINE // dtype.itemsize, HEADER // dtype.itemsize
        raw = np.zeros(header + value_offsets(self.stages)[-1] + line, dtype)
        first = -raw.ctypes.data % CACHE_LINE // dtype.itemsize
        return raw[first : first + raw.size - line]

    def states(self, memory: Array) -> list[tuple[Array, Array]]:
        """Of each stage of cells h (B, P) and the other states (states but h, B, H): views."""
        turn = int(memory[: HEADER // memory.itemsize].view(np.int64)[0])
        own = memory[HEADER // memory.itemsize :]
        found = []
        for stage, at in zip(self.stages, value_offsets(self.stages), strict=False):
            if isinstance(stage, CellStage):
                B, step, rest_at, inner_at = stage.B, stage.out_step, *stage.layout[:2]
                h = own[at + turn * B * step :][: B * step].reshape(B, step)
                rest = own[at + rest_at : at + inner_at].reshape(-1, B, stage.rest_step)
                found.append((h[:, : stage.P], rest[..., : stage.H]))
        return found

    @property
    def cells(self) -> list[Cell]:
        """The cells of the stages that `states` tells of."""
        return [stage.cell for stage in self.stages if isinstance(stage, CellStage)]

    @property
    def work(self) -> int:
        """Multiply-adds of a step."""
        return sum(stage.work for stage in self.stages)


def stage_of(weights: Weights, B: int, storage: str) -> tuple[CellStage, tuple[Array, ...]]:
    """The stage of one direction of a layer, and its weights."""
    stage = CellStage(
        weights.cell, str(weights.dtype), storage, B, weights.input_size, weights.hidden_size,
        weights.state_size, weights.w_hr is not None,
    )  # fmt: skip
    return stage, weights.stream(storage)


def pack_linear(weight: Array, bias: Array | None, storage: str) -> tuple[Array, ...]:
    """Weights of a linear stage, weight (H, I) and bias (H,), in the order of its slots."""
    H, I = weight.shape
    offsets = np.zeros((1, H), weight.dtype) if bias is None else bias[None]
    width = VECTORS * lanes_of(FLOATS[str(weight.dtype)])
    panels, scales = stored(panels_of(weight.T), I, width, storage)
    return on_line(panels), on_line(panels_of(offsets)), scales
