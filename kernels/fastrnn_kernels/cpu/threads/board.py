"""The board: words by which callers hand jobs to helpers, inside compiled code.

One caller at a time has the board; a second one runs its jobs itself. From Python, `begin`
puts jobs on it and `finish` comes back when they are done. A caller in compiled code holds
helpers that listen, and only these (`hold`, `run_held`): waking one takes Python. The threads of a
framework's own runtime take calls from it in place of helpers (`openmp.py`).
"""

import ctypes
import time
from typing import Any

import numpy as np
from numba import njit, types

from fastrnn_kernels.cache.disk import kernel
from fastrnn_kernels.cpu.isa import atomic
from fastrnn_kernels.cpu.isa.address import set_word, word, words
from fastrnn_kernels.cpu.isa.inlined import NO_WRAPPERS
from fastrnn_kernels.cpu.threads.job import (
    ARRIVALS,
    CALLS,
    COUNT,
    MEMBERS,
    TEAM,
    WORDS,
    Record,
    call,
)

#: How long a helper looks for a call before it falls asleep: calls in a loop find it awake.
LINGER_SECONDS = 2e-4
#: Helpers at most: how many mailboxes there are.
MOST_HELPERS = 254

#: Words of a cache line, and the number of the first helper's line: helper k's mailbox is the word
#: at (k + FIRST) * LINE.
LINE, FIRST = 16, 2
#: Words of the board; those that change while calls are made have a line of their own.
NEXT = 0  # the number of the call that is made next
FINISHED = 8  # calls that are done
(
    RECORDS,  # where the jobs' records are
    TOTAL,  # calls in all
    OWNER,  # who has the board
    CPU,  # which helpers keep off: the caller's
    ROOM,  # helpers that find another
    THREADS,  # that a call may use
    LOOKS,  # for a call before a helper falls asleep
    REGION,  # how far a parallel region of another runtime is
    SIZE,  # words of its jobs' records
    NUMBER_OF,  # the address of that runtime's function which tells how many threads it has
) = range(16, 26)
#: Who has the board: nobody, a caller in compiled code, nobody ever again; each call from Python
#: has a number of its own, from FIRST_CALL on.
FREE, COMPILED, CLOSED, FIRST_CALL = 0, 1, 2, 3
#: What a helper does: a caller turns the first two to CALLED, a helper that to WORKING. Who is
#: HELD will be called in a moment, and does not fall asleep.
ASLEEP, LISTENING, CALLED, WORKING, HELD = 0, 1, 2, 3, 4
#: What `begin` gives where another caller has the board.
TAKEN = -1
#: A region whose jobs are not there yet, whose first thread puts them there, and one to be run.
EMPTY, FILLED, OPEN = 0, 1, 2


def new_board() -> Record:
    """A board, which stays for good: a helper may look at it as Python ends."""
    memory = (ctypes.c_int64 * (LINE * (MOST_HELPERS + FIRST)))()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    board = np.ctypeslib.as_array(memory)
    board[CPU] = -1
    return board


@njit(**NO_WRAPPERS)
def put(board, records, size, threads):  # type: ignore[no-untyped-def]
    """Put jobs on the board, whose records lie at an address, in so many words, for threads.

    Teams come first and have no more members than there are threads, so that each member
    finds a thread that is free while the others wait for it.
    """
    teams, total = 0, 0
    for at in range(0, size, WORDS):
        teams += word(records, at + TEAM)
    for at in range(0, size, WORDS):
        many, team = word(records, at + COUNT), word(records, at + TEAM)
        if team:
            many = min(many, max(1, threads // teams))
        set_word(records, at + CALLS, many)
        set_word(records, at + MEMBERS, many if team else 1)
        set_word(records, at + ARRIVALS, 0)
        total += many
    board[RECORDS], board[TOTAL] = records, total
    board[FINISHED] = 0
    atomic.store(board, NEXT, 0)


@njit(**NO_WRAPPERS)
def make_calls(board):  # type: ignore[no-untyped-def]
    """Make calls of the board's jobs, whoever is free the next, until all are begun."""
    total = board[TOTAL]
    while True:
        number = atomic.add(board, NEXT, 1)
        if number >= total:
            return
        record = board[RECORDS]
        while number >= word(record, CALLS):
            number -= word(record, CALLS)
            record += 8 * WORDS
        call(record, number, word(record, MEMBERS))
        atomic.add(board, FINISHED, 1)


@njit(**NO_WRAPPERS)
def come_back(board, helpers, idle):  # type: ignore[no-untyped-def]
    """Take part, and come back when all calls are made and all helpers away from the board.

    Who has not come yet need not come any more: it is `idle` then.
    """
    make_calls(board)
    looks = 0
    while atomic.load(board, FINISHED) < board[TOTAL]:
        looks = atomic.wait(looks)
    for k in range(helpers):
        mailbox = (k + FIRST) * LINE
        if not atomic.replace(board, mailbox, CALLED, idle):
            while atomic.load(board, mailbox) == WORKING:
                looks = atomic.wait(looks)
    atomic.store(board, OWNER, FREE)


@njit(**NO_WRAPPERS)
def alone_at(records, size):  # type: ignore[no-untyped-def]
    """Make all calls of jobs whose records lie at an address, in so many words."""
    for at in range(0, size, WORDS):
        for number in range(1 if word(records, at + TEAM) else word(records, at + COUNT)):
            call(records + 8 * at, number, 1)


@kernel("board-alone")
def alone(records):  # type: ignore[no-untyped-def]
    """Make all calls of jobs; a team is one thread."""
    alone_at(records.ctypes.data, records.size)


@kernel("board-begin")
def begin(board, own, records, helpers):  # type: ignore[no-untyped-def]
    """Put the jobs of call number `own` on the board and call helpers.

    How many of these sleep and have to be woken, or TAKEN.
    """
    if not atomic.replace(board, OWNER, FREE, own):
        return TAKEN
    put(board, records.ctypes.data, records.size, helpers + 1)
    asleep = 0
    for k in range(helpers):
        mailbox = (k + FIRST) * LINE
        while not atomic.replace(board, mailbox, LISTENING, CALLED):
            if atomic.replace(board, mailbox, ASLEEP, CALLED):
                asleep += 1
                break
    return asleep


@kernel("board-finish")
def finish(board, own, helpers):  # type: ignore[no-untyped-def]
    """Take part in what `begin` put there, if it did, and come back when that is done."""
    if atomic.load(board, OWNER) == own:
        come_back(board, helpers, ASLEEP)


@njit(**NO_WRAPPERS)
def hold(board, most):  # type: ignore[no-untyped-def]
    """Take the board, at an address, and helpers for a team of `most`; 0 if some do not listen."""
    board = words(board)
    helpers = min(min(most, board[THREADS]) - 1, min(board[ROOM], MOST_HELPERS))
    if helpers < 1 or not atomic.replace(board, OWNER, FREE, COMPILED):
        return 0
    held = 0
    while held < helpers and atomic.replace(board, (held + FIRST) * LINE, LISTENING, HELD):
        held += 1
    if held == helpers:
        return held
    for k in range(held):
        atomic.store(board, (k + FIRST) * LINE, LISTENING)
    atomic.store(board, OWNER, FREE)
    return 0


@njit(**NO_WRAPPERS)
def run_held(board, record, helpers):  # type: ignore[no-untyped-def]
    """Run the team's job whose record lies at an address, with the helpers that are held."""
    set_word(record, CALLS, helpers + 1)
    set_word(record, MEMBERS, helpers + 1)
    set_word(record, ARRIVALS, 0)
    board = words(board)
    board[RECORDS], board[TOTAL] = record, helpers + 1
    board[FINISHED] = 0
    atomic.store(board, NEXT, 0)
    for k in range(helpers):
        atomic.store(board, (k + FIRST) * LINE, CALLED)
    come_back(board, helpers, LISTENING)


@kernel("board-serve")
def serve(board, mailbox):  # type: ignore[no-untyped-def]
    """Answer the calls that come, until none has come for a while."""
    looks = 0
    while True:
        state = atomic.load(board, mailbox)
        if state == CALLED:
            if atomic.replace(board, mailbox, CALLED, WORKING):
                make_calls(board)
                atomic.store(board, mailbox, LISTENING)
                looks = 0
        elif state == ASLEEP:
            return
        else:
            atomic.pause()
            looks += 1
            if looks > board[LOOKS] and atomic.replace(board, mailbox, LISTENING, ASLEEP):
                return


@kernel("board-look")
def look(board, mailbox, looks):  # type: ignore[no-untyped-def]
    """Look for a call so many times, as `serve` does."""
    found = 0
    for _ in range(looks):
        found += atomic.load(board, mailbox) == CALLED
        atomic.pause()
    return found


def set_looks(board: Record) -> None:
    """Measure how many looks LINGER_SECONDS are: the instruction that waits differs by CPU."""
    many, mailbox = 1000, FIRST * LINE
    best = min(_seconds(look, board, mailbox, many) for _ in range(3))
    board[LOOKS] = max(many, int(many * LINGER_SECONDS / best))


def _seconds(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return max(time.perf_counter() - start, 1e-9)


@kernel("board-shut")
def shut(board):  # type: ignore[no-untyped-def]
    """Let nobody have the board any more, if nobody has it now; whether it is so."""
    return atomic.replace(board, OWNER, FREE, CLOSED) or atomic.load(board, OWNER) == CLOSED


def prepare() -> None:
    """Compile what threads run, or load it; a helper must not find it missing when called."""
    array = types.Array(types.int64, 1, "C")
    for function, kinds in (
        (alone, (array,)),
        (begin, (array, types.int64, array, types.int64)),
        (finish, (array, types.int64, types.int64)),
        (look, (array, types.int64, types.int64)),
        (serve, (array, types.int64)),
        (shut, (array,)),
    ):
        function.compile(kinds)
