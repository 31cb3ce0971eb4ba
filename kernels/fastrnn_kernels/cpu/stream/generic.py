"""Steps of any sizes: what a stream runs until the step for its own sizes is compiled.

They read the sizes that other steps have as constants, from a list of words that the program's
table points to; all else is the same code (`functions.py`). Each kind of stage is a function of its
own, found by its address, so few of them serve every model; they come with the package, compiled.

    sizes     | B | I | O | out_step | out_at | stages | stage 0: function, its sizes | stage 1: ...
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastrnn_kernels.cache.disk import at_hand as on_disk
from fastrnn_kernels.cache.disk import kernel, native_address
from fastrnn_kernels.cells.activations import PLAIN
from fastrnn_kernels.cells.registry import CELLS
from fastrnn_kernels.cpu.isa.address import address_of, call_native_number, moved, values, word
from fastrnn_kernels.cpu.isa.host import suffix
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.product.storage import FULL
from fastrnn_kernels.cpu.stream.cell_stage import CellStage
from fastrnn_kernels.cpu.stream.functions import (
    SIGNATURE,
    SIZES,
    TEAM_SIGNATURE,
    Ends,
    Stage,
    alone,
    ends,
    in_team,
    places,
)
from fastrnn_kernels.cpu.stream.linear_stage import LinearStage
from fastrnn_kernels.cpu.stream.stage import FLOATS, Sizes

_STAGES = len(Ends._fields)  # the word that says how many there are
_FIRST = _STAGES + 1
_STAGE_WORDS = 1 + len(Sizes._fields)
_STAGE_SIGNATURE = (types.int64,) * 10
#: Addresses by the names of kernels; machine code lives as long as what compiled it.
_addresses: dict[str, tuple[int, Any]] = {}


@inlined
def _ends_of(program):  # type: ignore[no-untyped-def]
    at = word(program, SIZES)
    return Ends(word(at, 0), word(at, 1), word(at, 2), word(at, 3), word(at, 4))


@inlined
def _sizes_at(at):  # type: ignore[no-untyped-def]
    return Sizes(
        word(at, 1), word(at, 2), word(at, 3), word(at, 4), word(at, 5), word(at, 6), word(at, 7),
        word(at, 8), word(at, 9), word(at, 10), word(at, 11),
    )  # fmt: skip


@inlined
def _through(program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
    """One step of all stages, as `functions._stacked` has it."""
    sizes = word(program, SIZES)
    at = sizes + 8 * _FIRST
    for _ in range(word(sizes, _STAGES)):
        phase = call_native_number(
            word(at, 0),
            (
                at, program, address_of(memory), address_of(x), x_step,
                turn, member, members, record, phase,
            ),
        )  # fmt: skip
        stage = _sizes_at(at)
        x = moved(memory, stage.at + (1 - turn) * stage.B * stage.out_step)
        x_step = stage.out_step
        at += 8 * _STAGE_WORDS
    return phase


def _stage_function(stage: Stage) -> Any:
    """The function of all stages of a kind, for one thread and for a team."""
    run, pointer = stage.step(False, True), values(FLOATS[stage.dtype])

    def any_stage(at, program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        return run(
            _sizes_at(at), program, pointer(memory), pointer(x), x_step,
            turn, member, members, record, phase,
        )  # fmt: skip

    return any_stage


def _kernels(stages: Sequence[Stage], team: bool) -> list[tuple[str, str, Any, Any]]:
    """The kernels that stages take, the step's or team's last.

    Of each its name, what it is in words, its types, and a function that makes it.
    """
    dtype = stages[0].dtype
    found: list[tuple[str, str, Any, Any]] = [
        (
            f"stream-any-{stage.kind}{suffix()}",
            f"a stream's step of any sizes ({stage.kind.partition('-')[0]})",
            _STAGE_SIGNATURE,
            lambda stage=stage: _stage_function(stage),
        )
        for stage in stages
    ]
    found.append(
        (
            f"stream-any-{'team' if team else 'step'}-{dtype}{suffix()}",
            "a stream's step of any sizes",
            TEAM_SIGNATURE if team else SIGNATURE,
            lambda: (in_team if team else alone)(dtype, _ends_of, _through),
        )
    )
    return found


def at_hand(stages: Sequence[Stage], team: bool) -> bool:
    """Whether their functions can be had without compiling any."""
    wanted = {
        name: kinds
        for each in ((False, True) if team else (False,))
        for name, _, kinds, _ in _kernels(stages, each)
    }
    return all(name in _addresses or on_disk(name, kinds) for name, kinds in wanted.items())


def addresses(stages: Sequence[Stage], team: bool) -> list[int]:
    """Where the functions of stages begin, each one's, and the step's or team's last."""
    found = []
    for name, words, kinds, make in _kernels(stages, team):
        if name not in _addresses:
            function = kernel(name, words)(make())
            _addresses[name] = native_address(function, kinds), function
        found.append(_addresses[name][0])
    return found


def prepare(cells: Iterable[str], dtype: str) -> None:
    """Compile, or load, the functions of cells, by their names in the registry, and a type.

    With the LSTM come those of its projection, with the RNN those of linear layers.
    """
    stages: list[Stage] = []
    for name in cells:
        cell = CELLS[name].cell
        stages += [
            CellStage(cell, dtype, FULL, 1, 1, 1, 1, projected)
            for projected in ((False, True) if name == "lstm" else (False,))
        ]
        if name == "rnn":
            stages += [LinearStage(by, dtype, FULL, 1, 1, 1) for by in (None, *PLAIN)]
    for team in (False, True):
        addresses(stages, team)


def sizes_of(stages: Sequence[Stage], functions: Sequence[int]) -> NDArray[np.int64]:
    """The words by which functions of any sizes know these stages."""
    found = [*ends(stages), len(stages)]
    for (stage, slot, at), function in zip(places(stages), functions, strict=True):
        found += [function, *stage.sizes(slot, at)]
    return np.array(found, np.int64)
