"""Pickles of plain values and tensors, taken apart without making an object that they name.

A pickle is a program that calls what it names. Here nothing is called: lists, dictionaries, numbers
and text become themselves, what a caller knows becomes what the caller makes of it, and anything
else a `Foreign`, which has its name and nothing in it.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from fastrnn import handlers
from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError

#: Bytes that an operation takes of memory at most, and a character of text.
_OPERATION, _CHARACTER = 240, 5
#: Operations between two looks at the budget.
_OFTEN = 512
_MARK = object()
#: What may be a key: an integer, where it is its own hash.
_KEYS = (str, float, bytes, type(None), bool)

Known = Mapping[str, Callable[..., Any]]


class Foreign:
    """What stands for an object of a class, or a function, that the file names.

    name: its module and name, as in "builtins.open".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<a pickled {self.name}>"


class _Global(Foreign):
    """What is named itself, before it is called."""


def read(file: BinaryIO, budget: Budget, known: Known, persistent: Callable[[Any], Any]) -> Any:
    """The value of a pickle, up to whose end the file is read.

    known: by module and name, functions that make something of the arguments that the pickle has
        for what it names.
    persistent: makes something of what stands for an object outside of the pickle.

    Raises MisfitError where it is none, is cut short, or would take too much.
    """
    machine = _Machine(known, persistent)
    cost = 0
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file), 1):
            cost += _OPERATION
            if isinstance(argument, str | bytes | bytearray):
                cost += _CHARACTER * len(argument)
            if count % _OFTEN == 0:
                budget.take(cost, "its pickle")
                cost = 0
            run = _OPERATIONS.get(operation.name)
            if run is None:
                raise MisfitError(f"its pickle has the operation {operation.name}")
            run(machine, argument)
        budget.take(cost, "its pickle")
        return machine.stack.pop()
    except MisfitError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"its pickle is cut short or damaged: {error}") from error


class _Machine:
    def __init__(self, known: Known, persistent: Callable[[Any], Any]) -> None:
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def marked(self) -> list[Any]:
        """What was pushed since the last mark, taken off with it."""
        found = []
        while (one := self.stack.pop()) is not _MARK:
            found.append(one)
        return found[::-1]

    def two(self) -> list[Any]:
        """The topmost two, taken off."""
        last = self.stack.pop()
        return [self.stack.pop(), last]

    def call(self, what: Any, arguments: Any) -> Any:
        """What a call gives: of what is known, what it makes; else something foreign."""
        if not isinstance(what, _Global):
            return Foreign(what.name if isinstance(what, Foreign) else type(what).__name__)
        make = self.known.get(what.name)
        if make is None:
            return Foreign(what.name)
        return make(*arguments)


def _key(value: Any) -> Any:
    """A key whose hash is quick, and no other's by design."""
    if type(value) in _KEYS or (type(value) is int and abs(value) < 1 << 60):
        return value
    return Foreign(type(value).__name__)


def _put(target: Any, pairs: list[Any]) -> None:
    if isinstance(target, dict):
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[_key(key)] = value


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target += values


def _made(pairs: list[Any]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    _put(found, pairs)
    return found


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(value)


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _none(machine: _Machine, argument: Any) -> None:
    pass


def _pop_mark(machine: _Machine, argument: Any) -> None:
    machine.marked()


def _tuple(many: int) -> Callable[[_Machine, Any], None]:
    def run(machine: _Machine, argument: Any) -> None:
        values = tuple(machine.stack.pop() for _ in range(many))
        machine.stack.append(values[::-1])

    return run


def _after_mark(make: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(make(machine.marked()))


def _into(add: Callable[[Any, list[Any]], None]) -> Callable[[_Machine, Any], None]:
    def run(machine: _Machine, argument: Any) -> None:
        values = machine.marked()
        add(machine.stack[-1], values)

    return run


def _append(machine: _Machine, argument: Any) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


def _set_item(machine: _Machine, argument: Any) -> None:
    pair = machine.two()
    _put(machine.stack[-1], pair)


def _memoize(machine: _Machine, argument: Any) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.stack[-1]


def _global(machine: _Machine, argument: Any) -> None:
    machine.stack.append(_Global(argument.replace(" ", ".")))


def _stack_global(machine: _Machine, argument: Any) -> None:
    machine.stack.append(_Global(".".join(machine.two())))


def _reduce(machine: _Machine, argument: Any) -> None:
    what, arguments = machine.two()
    machine.stack.append(machine.call(what, arguments))


def _reduce_with_names(machine: _Machine, argument: Any) -> None:
    machine.stack.pop()
    what, _ = machine.two()
    machine.stack.append(Foreign(what.name if isinstance(what, Foreign) else "object"))


#: By pickletools' names. Sets become lists: a value in them might have no quick hash.
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(
        (
            "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE",
            "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
            "BINSTRING", "SHORT_BINSTRING",
        ),
        _push,
    ),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _none),
    "NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False),
    "MARK": _constant(_MARK),
    "POP": lambda machine, argument: machine.stack.pop(),
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, argument: machine.stack.append(machine.stack[-1]),
    "EMPTY_TUPLE": _constant(()), "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3),
    "TUPLE": _after_mark(tuple), "LIST": _after_mark(list), "DICT": _after_mark(_made),
    "FROZENSET": _after_mark(list),
    "EMPTY_LIST": lambda machine, argument: machine.stack.append([]),
    "EMPTY_SET": lambda machine, argument: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, argument: machine.stack.append({}),
    "APPEND": _append, "APPENDS": _into(_extend), "ADDITEMS": _into(_extend),
    "SETITEM": _set_item, "SETITEMS": _into(_put),
    "BINPUT": _memoize, "LONG_BINPUT": _memoize, "MEMOIZE": _memoize,
    "BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "LONG_BINGET": lambda machine, argument: machine.stack.append(machine.memo[argument]),
    "GLOBAL": _global, "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce, "NEWOBJ": _reduce, "NEWOBJ_EX": _reduce_with_names,
    # An object's own state: of a dictionary, what its keys do not say; of others, nothing we read.
    "BUILD": lambda machine, argument: machine.stack.pop(),
    "BINPERSID": lambda machine, argument: machine.stack.append(
        machine.persistent(machine.stack.pop())
    ),
}  # fmt: skip
