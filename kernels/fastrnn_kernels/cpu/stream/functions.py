"""The functions of streams: stages one after the other, from x to y.

    step(program, memory, x, y)
    team(program, memory, x, y, steps, member, members, record)

Both take addresses. The program's table begins with the functions' own and that of its sizes, and
from WEIGHTS on has those of the stages' weights. Memory is a header of HEADER bytes, whose first
word is the turn, and then the stages' values. x (steps, B, I) and y (steps, B, O) are
C-contiguous; y may be x, where O is I.

They are compiled for the sizes of a program, or for all programs of a type (`generic.py`). Both
have the same table, memory, turn and places where a team meets, and the same bits: so one may take
the other's place between any two steps.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from numba import types

from fastrnn_kernels.cpu.arrays.memory import CACHE_LINE
from fastrnn_kernels.cpu.isa.address import moved, set_word, values, word
from fastrnn_kernels.cpu.isa.denormals import flush, restore
from fastrnn_kernels.cpu.isa.inlined import inlined
from fastrnn_kernels.cpu.isa.llvm import lanes_of
from fastrnn_kernels.cpu.isa.vector import load, store_part
from fastrnn_kernels.cpu.stream.cell_stage import CellStage
from fastrnn_kernels.cpu.stream.linear_stage import LinearStage
from fastrnn_kernels.cpu.stream.stage import FLOATS

#: Of a program's table: its functions, the second 0 where it has none, where its sizes stand
#: (`generic.py`), and its weights.
STEP, TEAM, SIZES, WEIGHTS = 0, 1, 2, 3
#: Bytes of memory before the values.
HEADER = CACHE_LINE

Stage = CellStage | LinearStage

SIGNATURE, TEAM_SIGNATURE = (types.int64,) * 4, (types.int64,) * 8


class Ends(NamedTuple):
    """The sizes of a whole step, all integers."""

    B: Any
    I: Any  # of the first stage
    O: Any  # what comes out of the last, and the step of its rows in memory
    out_step: Any
    out_at: Any  # where they begin behind the header


def places(stages: Sequence[Stage]) -> Iterator[tuple[Stage, int, int]]:
    """Each stage, the first slot of its weights, and where its values begin."""
    slots = accumulate((stage.SLOTS for stage in stages), initial=WEIGHTS)
    return zip(stages, slots, value_offsets(stages), strict=False)


def value_offsets(stages: Sequence[Stage]) -> list[int]:
    """Where each stage's values begin behind the header, and their end."""
    return list(accumulate((stage.size for stage in stages), initial=0))


def ends(stages: Sequence[Stage]) -> Ends:
    """The sizes of a step of these stages."""
    first, last = stages[0], stages[-1]
    return Ends(first.B, first.I, last.out_size, last.out_step, value_offsets(stages)[-2])


def _stacked(stages: list[tuple[Stage, int, int]], team: bool) -> Any:
    """One step of all stages, each reading what the one before has written."""
    if len(stages) == 1:
        (stage, slot, at) = stages[0]
        sizes, run = stage.sizes(slot, at), stage.step(True, team)

        @inlined
        def one(program, memory, x, x_step, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
            return run(sizes, program, memory, x, x_step, turn, member, members, record, phase)

        return one
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


def _whole_step(dtype: str, ends_of: Any, through: Any) -> Any:
    """One step from x to y, and the phase that follows."""
    W, load_one, store_one = lanes_of(FLOATS[dtype]), load(1), store_part(1)

    @inlined
    def step(program, memory, x, y, turn, member, members, record, phase):  # type: ignore[no-untyped-def]
        ends = ends_of(program)
        phase = through(program, memory, x, ends.I, turn, member, members, record, phase)
        if member == 0:
            for row in range(ends.B):
                at = ends.out_at + ((1 - turn) * ends.B + row) * ends.out_step
                for u in range(0, ends.O, W):
                    value = load_one(memory, at + u, 0)
                    store_one(y, row * ends.O + u, 0, ends.O - u, value)
        return phase

    return step


def alone(dtype: str, ends_of: Any, through: Any) -> Callable[..., None]:
    """The function that runs a step on the calling thread.

    ends_of: of the program, its `Ends`. through: one step of all stages.
    """
    one_step, pointer = _whole_step(dtype, ends_of, through), values(FLOATS[dtype])

    def step(program, memory, x, y):  # type: ignore[no-untyped-def]
        mode, turn = flush(), word(memory, 0)
        one_step(program, pointer(memory + HEADER), pointer(x), pointer(y), turn, 0, 1, 0, 0)
        set_word(memory, 0, 1 - turn)
        restore(mode)

    return step


def in_team(dtype: str, ends_of: Any, through: Any) -> Callable[..., None]:
    """The function of a team's members, for any number of steps."""
    one_step, pointer = _whole_step(dtype, ends_of, through), values(FLOATS[dtype])

    def team(program, memory, x, y, steps, member, members, record):  # type: ignore[no-untyped-def]
        ends = ends_of(program)
        inputs, outputs = ends.B * ends.I, ends.B * ends.O
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


def function_of(stages: Sequence[Stage], team: bool) -> Callable[..., None]:
    """The function of these stages: that of a team's members, or the calling thread's."""
    known = ends(stages)
    through = _stacked(list(places(stages)), team)
    make = in_team if team else alone
    return make(stages[0].dtype, inlined(lambda program: known), through)
