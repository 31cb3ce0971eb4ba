"""Symbols as the lines of a function of one unit, in the form of `cells/lstm.py`."""

import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from fastrnn_kernels.equations.symbols import Symbol

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
#: How tightly an operation binds; an operand that binds less stands in parentheses.
_BINDS = {"add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3}
_WIDTH = 100
#: What lines call beside their own names.
CALLED = ("one", "zero", "number", "where_at_most")


class Writer:
    """The body of one function: its values are written once, where more than one line reads them.

    given: what symbols that are given are called, by their numbers. names: what others are called
    where they get a line. of: a name whose type plain numbers take. taken: names that stand for
    something else.
    """

    def __init__(
        self, given: Mapping[int, str], names: Mapping[int, str], of: str, taken: Iterable[str]
    ) -> None:
        self.lines: list[str] = []
        self.functions: set[str] = set()
        self._called = dict(given)
        self._names, self._of = dict(names), of
        self._taken = {*given.values(), *taken}
        self._uses: dict[int, int] = {}

    def write(self, results: Sequence[Symbol], named: Iterable[int] = ()) -> list[str]:
        """Lines for all that some symbols need, and what these are then called.

        named: numbers of symbols that get a line in any case.
        """
        named = set(named)
        needed = self._needed(results)
        for number in sorted(needed):
            one = needed[number]
            several = self._uses.get(number, 0) > 1 and one.op not in ("number", "neg")
            if number in named or several:
                self._line(one)
        return [self.text(one) for one in results]

    def _needed(self, results: Sequence[Symbol]) -> dict[int, Symbol]:
        """What is to be computed; how often each value is read is counted."""
        found: dict[int, Symbol] = {}
        waiting = list(results)
        while waiting:
            one = waiting.pop()
            self._uses[one.number] = self._uses.get(one.number, 0) + 1
            if one.number not in found and one.number not in self._called:
                found[one.number] = one
                waiting += one.args
        return found

    def _line(self, one: Symbol) -> None:
        right = self._expression(one)[0]
        name = self._name(one)
        self._called[one.number] = name
        self.lines += _wrapped(f"{name} = {right}")

    def _name(self, one: Symbol) -> str:
        wanted = self._names.get(one.number, "")
        if not wanted:
            wanted = word_of(one, self._called | self._names)
        wanted = wanted or "value"
        name, count = wanted, 1
        while name in self._taken or keyword.iskeyword(name):
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name

    def text(self, one: Symbol) -> str:
        """What a symbol is called, or how it is computed."""
        return self._called.get(one.number) or self._expression(one)[0]

    def _expression(self, one: Symbol) -> tuple[str, int]:
        """How a symbol is computed, and how tightly that binds."""
        if one.op == "number":
            return self._number(one.what), 9
        if one.op in _SIGNS:
            binds = _BINDS[one.op]
            left = self._operand(one.args[0], binds)
            # Sums and products are added from the left, as they were in the user's lines.
            right = self._operand(one.args[1], binds + 1)
            return f"{left} {_SIGNS[one.op]} {right}", binds
        if one.op == "neg":
            return f"-{self._operand(one.args[0], _BINDS['neg'])}", _BINDS["neg"]
        self.functions.add(one.op)
        return f"{one.op}({', '.join(map(self.text, one.args))})", 9

    def _operand(self, one: Symbol, least: int) -> str:
        if one.number in self._called:
            return self._called[one.number]
        text, binds = self._expression(one)
        return text if binds >= least else f"({text})"

    def _number(self, value: float) -> str:
        # A bare 1.0 would widen float32.
        for name, plain in (("one", 1.0), ("zero", 0.0)):
            if value == plain:
                self.functions.add(name)
                return f"{name}({self._of})"
        self.functions.add("number")
        return f"number({self._of}, {value!r})"


def word_of(one: Symbol, names: Mapping[int, str]) -> str:
    """What a function of a value that has a name is called, tanh_c; empty for all else."""
    inner = names.get(one.args[0].number, "") if len(one.args) == 1 and one.op != "neg" else ""
    return f"{one.op}_{inner}" if inner else ""


def function(name: str, arguments: Sequence[str], body: Iterable[str]) -> str:
    """The text of a function."""
    return f"def {name}({', '.join(arguments)}):\n" + textwrap.indent("\n".join(body), "    ")


def unpacked(names: Sequence[str], value: str) -> str:
    """The line that takes a tuple apart."""
    left = ", ".join(names) if len(names) != 1 else f"({names[0]},)"
    return f"{left} = {value}" if names else ""


def packed(texts: Sequence[str]) -> str:
    """A tuple of what was written."""
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def _wrapped(line: str) -> list[str]:
    """A line, or several where it is too long: broken at the outermost + and - it has."""
    if len(line) + 4 <= _WIDTH:
        return [line]
    name, _, right = line.partition(" = ")
    pieces = re.split(r" (?=[-+*] )", right)
    lines, current = [], pieces[0]
    for piece in pieces[1:]:
        if len(current) + len(piece) + 9 > _WIDTH:
            lines.append(current)
            current = piece
        else:
            current = f"{current} {piece}"
    lines.append(current)
    return [f"{name} = (", *(f"    {one}" for one in lines), ")"]
