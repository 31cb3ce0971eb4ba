"""Streams' programs: the functions and weights of a model's stages, and its memory.

Where functions of any sizes are at hand (`generic.py`) and none for a program's own sizes, it runs
on those from the first step on. Its own are compiled by another process (`background.py`), and take
their place in its table, between two steps.
"""

import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import at_hand, kernel, native_address
from fastrnn_kernels.cells.registry import CELLS
from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE, Array, on_line
from fastrnn_kernels.cpu.isa.host import HOST, current, suffix
from fastrnn_kernels.cpu.isa.llvm import lanes_of
from fastrnn_kernels.cpu.product.panels import VECTORS
from fastrnn_kernels.cpu.product.storage import stored
from fastrnn_kernels.cpu.product.weights import Weights, panels_of
from fastrnn_kernels.cpu.stream import background, generic
from fastrnn_kernels.cpu.stream.cell_stage import CellStage
from fastrnn_kernels.cpu.stream.functions import (
    HEADER,
    SIGNATURE,
    SIZES,
    STEP,
    TEAM,
    TEAM_SIGNATURE,
    WEIGHTS,
    Stage,
    function_of,
    value_offsets,
)
from fastrnn_kernels.cpu.stream.linear_stage import LinearStage
from fastrnn_kernels.cpu.stream.stage import FLOATS

#: Compiled functions by their names; machine code lives as long as what compiled it.
_compiled: dict[str, tuple[int, Any]] = {}


def _name(stages: Sequence[Stage], team: bool) -> str:
    """What the function of these stages is kept under."""
    key = "-".join(["team" if team else "step", *(stage.key for stage in stages)]) + suffix()
    return f"stream-{hashlib.sha256(key.encode()).hexdigest()[:20]}"


def _signature(team: bool) -> Any:
    return TEAM_SIGNATURE if team else SIGNATURE


def _teams(team: bool) -> tuple[bool, ...]:
    """Of a program with a function for teams, or without: for which functions `team` is true."""
    return (False, True) if team else (False,)


def _address(stages: Sequence[Stage], team: bool) -> int:
    """Where the function for the sizes of these stages begins."""
    name = _name(stages, team)
    if name not in _compiled:
        sizes = "; ".join(stage.words for stage in stages)
        words = f"a stream's step{' for several threads' if team else ''} ({sizes})"
        function = kernel(name, words)(function_of(stages, team))
        _compiled[name] = native_address(function, _signature(team)), function
    return _compiled[name][0]


def _at_hand(stages: Sequence[Stage], team: bool) -> bool:
    """Whether functions for these stages' sizes can be had without compiling them."""
    names = [(_name(stages, each), _signature(each)) for each in _teams(team)]
    return all(name in _compiled or at_hand(name, kinds) for name, kinds in names)


def _described(stages: Sequence[Stage], team: bool) -> str:
    """What another process has to know to compile the functions of stages; "" if it cannot.

    It has the registry's own cells alone.
    """
    names = {entry.cell: name for name, entry in CELLS.items()}
    rows: list[Any] = []
    for stage in stages:
        if isinstance(stage, LinearStage):
            what = [stage.activation, stage.dtype, stage.storage, stage.B, stage.I, stage.H]
        elif stage.cell in names and stage.blocks == 1 and not stage.norm:
            what = [
                names[stage.cell], stage.cell.key, stage.dtype, stage.storage,
                stage.B, stage.I, stage.H, stage.P, stage.projected,
            ]  # fmt: skip
        else:
            return ""
        rows.append(what)
    return json.dumps([team, rows])


def compile_described(text: str) -> None:
    """Compile the functions of stages, into the cache on disk: in a process of its own.

    Raises KeyError for a cell that is not known here.
    """
    team, rows = json.loads(text)
    stages: list[Stage] = []
    for row in rows:
        if len(row) == len(("activation", "dtype", "storage", "B", "I", "H")):
            stages.append(LinearStage(*row))
            continue
        name, key, *sizes = row
        cell = CELLS[name].cell
        if cell.key != key:
            raise KeyError(f"cell {name} is {cell.key}, wanted {key}")
        stages.append(CellStage(cell, *sizes))
    for each in _teams(team):
        _address(stages, each)


#: One layer's h (B, P), and its other states (states but h, B, H).
LayerState = tuple[Array, Array]


def new_memory(stages: Sequence[Stage]) -> Array:
    """Memory of a new stream, its states zeros; it begins on a cache line."""
    dtype = np.dtype(stages[0].dtype)
    line, header = CACHE_LINE // dtype.itemsize, HEADER // dtype.itemsize
    raw = np.zeros(header + value_offsets(stages)[-1] + line, dtype)
    first = -raw.ctypes.data % CACHE_LINE // dtype.itemsize
    return raw[first : first + raw.size - line]


def states_in(stages: Sequence[Stage], memory: Array) -> list[LayerState]:
    """Of each stage of cells h (B, P) and the other states (states but h, B, H): views."""
    turn = int(_header(memory)[0])
    own = memory[HEADER // memory.itemsize :]
    found = []
    for stage, at in zip(stages, value_offsets(stages), strict=False):
        if isinstance(stage, CellStage):
            B, step, rest_at, inner_at = stage.B, stage.out_step, *stage.layout[:2]
            h = own[at + turn * B * step :][: B * step].reshape(B, step)
            rest = own[at + rest_at : at + inner_at].reshape(-1, B, stage.rest_step)
            found.append((h[:, : stage.P], rest[..., : stage.H]))
    return found


def begin_from(stages: Sequence[Stage], memory: Array, starts: Sequence[LayerState]) -> None:
    """Write what a stream begins from, whichever turn it is: h stands in both its places."""
    for turn in (1, 0):
        _header(memory)[0] = turn
        for own, start in zip(states_in(stages, memory), starts, strict=True):
            for mine, its in zip(own, start, strict=True):
                mine[...] = its


def _header(memory: Array) -> NDArray[np.int64]:
    return memory[: HEADER // memory.itemsize].view(np.int64)


@dataclass(frozen=True, eq=False)
class Program:
    """Stages with their weights, ready to run; any number of streams may share it."""

    stages: tuple[Stage, ...]
    table: NDArray[np.int64]
    weights: tuple[Array, ...]  # which the table points to
    sizes: NDArray[np.int64]  # which the table points to, for functions of any sizes, or none
    team: bool  # whether it has a function for teams, too

    @classmethod
    def of(cls, stages: Sequence[tuple[Stage, tuple[Array, ...]]], team: bool) -> "Program":
        """The program of stages with their weights, in the order of their slots.

        team: whether it has a function for teams, too.
        """
        weights = tuple(array for _, arrays in stages for array in arrays)
        alone = tuple(stage for stage, _ in stages)
        table = np.zeros(WEIGHTS + len(weights), np.int64)
        table[WEIGHTS:] = [array.ctypes.data for array in weights]
        task = "" if _at_hand(alone, team) else _described(alone, team)
        if current() is HOST and task and background.usable() and generic.at_hand(alone, team):
            *functions, table[STEP] = generic.addresses(alone, False)
            sizes = generic.sizes_of(alone, functions)
            table[SIZES] = sizes.ctypes.data
            if team:
                table[TEAM] = generic.addresses(alone, True)[-1]
            program = cls(alone, table, weights, sizes, team)
            background.ask(task, weakref.WeakMethod(program._take_up))
            return program
        program = cls(alone, table, weights, np.zeros(0, np.int64), team)
        program._use_own()
        return program

    def _use_own(self) -> None:
        for team in reversed(_teams(self.team)):
            # One aligned word: whoever steps meanwhile finds either function.
            self.table[TEAM if team else STEP] = _address(self.stages, team)

    @property
    def specialised(self) -> bool:
        """Whether it runs the functions for its own sizes."""
        if not self.sizes.size:
            return True
        found = _compiled.get(_name(self.stages, False))
        return found is not None and int(self.table[STEP]) == found[0]

    def specialise(self) -> None:
        """Run the functions for its own sizes from now on, compiled here if they are not yet."""
        if self.specialised:
            return
        if not _at_hand(self.stages, self.team):
            background.give_up(_described(self.stages, self.team))
        self._use_own()

    def _take_up(self) -> bool:
        """As `specialise`, but only if nothing is to be compiled; whether it is done."""
        if not _at_hand(self.stages, self.team):
            return False
        self.specialise()
        return True

    def states(self, memory: Array) -> list[LayerState]:
        """Of each stage of cells h (B, P) and the other states (states but h, B, H): views."""
        return states_in(self.stages, memory)

    @property
    def work(self) -> int:
        """Multiply-adds of a step."""
        return sum(stage.work for stage in self.stages)


def stage_of(weights: Weights, B: int, storage: str) -> tuple[CellStage, tuple[Array, ...]]:
    """The stage of one direction of a layer, and its weights."""
    stage = CellStage(
        weights.cell, str(weights.dtype), storage, B, weights.input_size, weights.hidden_size,
        weights.state_size, weights.w_hr is not None, weights.blocks,
        weights.norm,
    )  # fmt: skip
    return stage, weights.stream(storage)


def pack_linear(weight: Array, bias: Array | None, storage: str) -> tuple[Array, ...]:
    """Weights of a linear stage, weight (H, I) and bias (H,), in the order of its slots."""
    H, I = weight.shape
    offsets = np.zeros((1, H), weight.dtype) if bias is None else bias[None]
    width = VECTORS * lanes_of(FLOATS[str(weight.dtype)])
    panels, scales = stored(panels_of(weight.T), I, width, storage)
    return on_line(panels), on_line(panels_of(offsets)), scales
