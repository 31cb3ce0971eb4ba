"""Pickles of plain values and tensors, taken apart without making an object that they name.

A pickle is a program that calls what it names. Here nothing is called: lists, dictionaries, numbers
and text become themselves, what a caller knows becomes what the caller makes of it, and anything
else a `Foreign`, which has its name and nothing in it.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn_kernels import handlers

#: Bytes that an operation takes of memory at most, and a character of text.
_OPERATION, _CHARACTER = 100, 5
#: Operations between two looks at the budget, and bytes.
_OFTEN, _LARGE = 512, 1 << 20
_MARK = object()
#: What may be a key: an integer, where it is its own hash.
_KEYS = (str, float, bytes, type(None), bool)

Known = Mapping[str, Callable[..., Any]]


class Foreign:
    """What stands for an object of a class, or a function, that the file names.

    name: its module and name, as in "builtins.open".
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<a pickled {self.name}>"


class _Global(Foreign):
    """What is named itself, before it is called."""

    __slots__ = ()


def read(file: BytesIO, budget: Budget, known: Known, persistent: Callable[[Any], Any]) -> Any:
    """The value of a pickle, up to whose end the file is read.

    known: by module and name, functions that make something of the arguments that the pickle has
        for what it names.
    persistent: makes something of what stands for an object outside of the pickle.

    Raises MisfitError where it is none, is cut short, or would take too much.
    """
    machine = _Machine(known, persistent)
    data, at = file.getvalue(), file.tell()
    cost = count = 0
    try:
        while True:
            code = data[at]
            name, width, decode = _CODES[code]
            at += 1
            argument: Any = None
            if width:
                end = at + abs(width)
                if width < 0:  # of so many bytes, which say how many follow
                    at, end = end, end + int.from_bytes(data[at:end], "little")
                    cost += _CHARACTER * (end - at)
                if end > len(data):
                    raise MisfitError("its pickle is cut short")
                argument, at = decode(data[at:end]), end
            elif name == "GLOBAL":
                end = data.index(b"\n", data.index(b"\n", at) + 1)
                argument, at = data[at:end].decode().replace("\n", "."), end + 1
            elif name == "STOP":
                break
            cost += _OPERATION
            count += 1
            if count % _OFTEN == 0 or cost > _LARGE:
                budget.take(cost, "its pickle")
                cost = 0
            _OPERATIONS[name](machine, argument)
        budget.take(cost, "its pickle")
        file.seek(at)
        return machine.stack.pop()
    except MisfitError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"its pickle is cut short or damaged: {error!r}"[:300]) from error


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
    machine.stack.append(_Global(argument))


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


def _codes() -> dict[int, tuple[str, int, Callable[[bytes], Any]]]:
    """By their bytes, the operations: name, width of the argument and what makes it of its bytes.

    The width is less than 0 where so many bytes say how long the argument is.
    """

    def number(raw: bytes) -> int:
        return int.from_bytes(raw, "little")

    def signed(raw: bytes) -> int:
        return int.from_bytes(raw, "little", signed=True)

    def fraction(raw: bytes) -> float:
        return float(struct.unpack(">d", raw)[0])

    def text(raw: bytes) -> str:
        return raw.decode("utf-8", "surrogatepass")

    def old_text(raw: bytes) -> str:
        return raw.decode("latin-1")

    arguments: dict[str, tuple[int, Callable[[bytes], Any]]] = {
        "PROTO": (1, number), "FRAME": (8, number),
        "BININT": (4, signed), "BININT1": (1, number), "BININT2": (2, number),
        "LONG1": (-1, signed), "LONG4": (-4, signed), "BINFLOAT": (8, fraction),
        "BINUNICODE": (-4, text), "SHORT_BINUNICODE": (-1, text), "BINUNICODE8": (-8, text),
        "BINBYTES": (-4, bytes), "SHORT_BINBYTES": (-1, bytes), "BINBYTES8": (-8, bytes),
        "BINSTRING": (-4, old_text), "SHORT_BINSTRING": (-1, old_text),
        "BINPUT": (1, number), "LONG_BINPUT": (4, number),
        "BINGET": (1, number), "LONG_BINGET": (4, number),
    }  # fmt: skip
    return {
        ord(one.code): (one.name, *arguments.get(one.name, (0, bytes)))
        for one in pickletools.opcodes
        if one.name in _OPERATIONS
    }


_CODES = _codes()
