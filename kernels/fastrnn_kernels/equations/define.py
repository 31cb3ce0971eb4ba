"""A cell from its forward equations: traced, differentiated, written, compiled like any other."""

import hashlib
import linecache
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numba import njit

from fastrnn_kernels.cells import functions
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations import derive, keep, write
from fastrnn_kernels.equations.errors import error, place_of
from fastrnn_kernels.equations.symbols import DERIVATIVES, Symbol
from fastrnn_kernels.equations.trace import Traced, trace

_WORD = re.compile(r"[A-Za-z_]\w*")

_ARGUMENTS = ("sums", "early_sums", "states", "saved", "d_states", "d_inner")

#: Operations whose operands may change places.
_EITHER = ("add", "mul")


def _reserved() -> set[str]:
    """The words that the functions that are written use themselves."""
    return {*_ARGUMENTS, *write.CALLED, *DERIVATIVES}


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Derived:
    """A cell, the text of the functions that were written for it, and what they follow from."""

    cell: Cell
    source: str
    traced: Traced

    @property
    def digest(self) -> str:
        """Of the equations alone: of files that were saved, whatever is derived from them."""
        traced, found = self.traced, dict[int, str]()
        roots = [*traced.new, *([traced.inner] if traced.inner is not None else [])]
        for root in roots:
            for one in root.below():
                what = one.what[:2] if one.op == "input" else one.what
                of = [found[arg.number] for arg in one.args]
                found[one.number] = _hash(one.op, what, sorted(of) if one.op in _EITHER else of)
        own = [found[root.number] for root in roots]
        return _hash(traced.gates, traced.states, traced.per_unit, own)[:16]


def define(
    function: Callable[..., Any],
    gates: Sequence[str],
    states: Sequence[str],
    per_unit: Sequence[str] = (),
    save: Sequence[str] = (),
    recompute: Sequence[str] = (),
) -> Derived:
    """The cell of a function's equations.

    function: takes the gates' sums, the states and, if there are any, the parameters of each unit;
        returns the new states.
    save, recompute: names of the function's own lines whose values the backward pass is given, or
        computes anew; of all others what costs less is done.

    Raises EquationError, with the user's line, for what is no cell.
    """
    traced = trace(function, tuple(gates), tuple(states), tuple(per_unit))
    return of_traced(traced, save, recompute)


def of_traced(traced: Traced, save: Sequence[str] = (), recompute: Sequence[str] = ()) -> Derived:
    """The cell of equations that are traced; save, recompute: as those of `define`."""
    return _Definition(traced, save, recompute).derived()


class _Definition:
    def __init__(self, traced: Traced, save: Sequence[str], recompute: Sequence[str]) -> None:
        self.traced, self.graph = traced, traced.graph
        late = set(traced.late)
        whole = [g for g in traced.gates if g not in (*traced.apart, *traced.x_only, *late)]
        graph = self.graph
        number = traced.inner.number if traced.inner is not None else None
        #: in the order of `Cell.sums`, and what functions call them
        self.sums = [
            *((graph.input("x", g), f"{g}_x" if g in traced.apart else f"a_{g}")
              for g in (*traced.x_only, *traced.apart)),
            *((graph.input("sum", g), f"a_{g}") for g in whole),
            *((graph.of("input", what=("late", g, number)), f"a_{g}") for g in traced.late),
            *((graph.input("h", g), f"{g}_h") for g in traced.apart),
        ]  # fmt: skip
        self.early = len(self.sums) - len(late)
        self.drawn = [(graph.input("drawn", name), name) for name in traced.drawn]
        self.old = [(graph.input("state", s), s) for s in traced.states]
        self.old += [(graph.input("unit", p), p) for p in traced.per_unit]
        self.d_new = [(graph.input("gradient", s), f"d{s}_new") for s in traced.states]
        self.d_inner = graph.input("gradient", "the value in place of h")
        self._check_names()
        self.gates = self._gates()
        self.names = self._names()
        d = derive.gradients(graph, self._gradients_of_results())
        nothing = graph.constant(0.0)
        d_sums = [d.get(one.number, nothing) for one, _ in self.sums]
        self.d_sums, self.d_late = d_sums[: self.early], d_sums[self.early :]
        self.d_old = [d.get(one.number, nothing) for one, _ in self.old]
        called = {one.number: name for one, name in (*self.sums, *self.old)}
        for number, name in [*called.items(), *self.names.items()]:
            if number in d:
                self.names.setdefault(d[number].number, f"d{name}")
        self.saved = self._kept(save, recompute)
        self.functions: set[str] = set()

    def _check_names(self) -> None:
        """Raise for names of gates, states or parameters that lines would use for two things."""
        given = [name for _, name in (*self.drawn, *self.sums, *self.old, *self.d_new)]
        for name in given:
            if name in _reserved() or given.count(name) > 1:
                raise error(
                    f"{name!r} would stand for two things in the functions that are written for "
                    f"{self.traced.name}: give that gate, state or parameter another name",
                    place_of(self.traced.code),
                )

    def _gradients_of_results(self) -> dict[int, Symbol]:
        found: dict[int, Symbol] = {}
        for new, (d, _) in zip(self.traced.new, self.d_new, strict=True):
            old = found.get(new.number)
            found[new.number] = d if old is None else old + d
        if self.traced.inner is not None:
            old = found.get(self.traced.inner.number)
            found[self.traced.inner.number] = self.d_inner if old is None else old + self.d_inner
        return found

    def _names(self) -> dict[int, str]:
        """What lines call values: the user's names, h_new where that is a name already."""
        taken = {name for _, name in (*self.drawn, *self.sums, *self.old, *self.d_new)}
        taken |= _reserved()
        names: dict[int, str] = {}
        of_new = {new.number: s for s, new in zip(self.traced.states, self.traced.new, strict=True)}
        for number, name in self.traced.names.items():
            names[number] = f"{name}_new" if name in taken else name
        for number, state in of_new.items():
            if self.graph.symbols[number].op != "input":
                names.setdefault(number, f"{state}_new")
        for number, gate in self.gates.items():
            if gate not in (*taken, *names.values()):
                names.setdefault(number, gate)
        return names

    def _gates(self) -> dict[int, str]:
        """The values of the gates: what the user calls so, or a function of the sum, σ(a_o)."""
        gates = self.traced.gates
        found = {number: name for number, name in self.traced.names.items() if name in gates}
        for one in self.graph.symbols:
            if len(one.args) == 1 and one.op != "neg" and one.args[0].op == "input":
                kind, gate = one.args[0].what[:2]
                if kind in ("sum", "x", "late") and gate not in found.values():
                    found[one.number] = gate
        return found

    def _kept(self, save: Sequence[str], recompute: Sequence[str]) -> list[Symbol]:
        traced = self.traced
        by_name = {name: number for number, name in traced.names.items()}
        for word in (*save, *recompute):
            if word not in by_name:
                raise error(
                    f"save and recompute name lines of {traced.name}: {word!r} is none of "
                    f"{', '.join(by_name) or 'them, as it has none'}",
                    place_of(traced.code),
                )
            if word in save and word in recompute:
                raise error(
                    f"{word!r} is named in save and in recompute: leave it out of one of them",
                    place_of(traced.code),
                )
        dependent = self._dependent()
        needed = {
            operand.number: operand
            for result in (*self.d_sums, *self.d_late, *self.d_old)
            for one in result.below()
            if one.number in dependent
            for operand in one.args
            if operand.number not in dependent
        }
        at_hand = {one.number for one, _ in self.old}
        never = [by_name[word] for word in recompute]
        # Gates come first: `return_gates` shows what tapes have of them.
        always = {by_name[word] for word in save} | (set(self.gates) - set(never))
        return keep.kept(list(needed.values()), at_hand, always, never)

    def _dependent(self) -> set[int]:
        """The numbers of what depends on gradients."""
        found: set[int] = set()
        for one in self.graph.symbols:
            gradient = one.op == "input" and one.what[0] == "gradient"
            if gradient or any(arg.number in found for arg in one.args):
                found.add(one.number)
        return found

    def derived(self) -> Derived:
        traced = self.traced
        saved_names = self._saved_names()
        texts = {"forward": self._forward()}
        if traced.inner is not None:
            texts["inner"] = self._inner()
            texts["late_backward"] = self._backward(saved_names, late=True)
        texts["backward"] = self._backward(saved_names, late=False)
        source = "\n\n\n".join(texts.values()) + "\n"
        compiled = _compiled(traced.name, source, texts, self.functions)
        cell = Cell(
            traced.name, traced.gates, traced.states, self._kept_as(saved_names),
            compiled["forward"], compiled["backward"], apart=traced.apart, late=traced.late,
            inner=compiled.get("inner"), late_backward=compiled.get("late_backward"),
            reads_h="h" in self._states_read(), per_unit=traced.per_unit, x_only=traced.x_only,
            drawn=traced.drawn,
        )  # fmt: skip
        return Derived(cell, source, traced)

    def _states_read(self) -> set[str]:
        """The states that the functions read."""
        results = [*self.traced.new, *self.d_sums, *self.d_late, *self.d_old]
        if self.traced.inner is not None:
            results.append(self.traced.inner)
        return {
            one.what[1]
            for result in results
            for one in result.below()
            if one.op == "input" and one.what[0] == "state"
        }

    def _saved_names(self) -> list[str]:
        """What saved values are called, in `Cell.saved` and as the backward pass takes them."""
        given = {one.number: name for one, name in (*self.drawn, *self.sums)}
        taken = {name for _, name in (*self.old, *self.d_new)}
        found: list[str] = []
        for one in self.saved:
            name = given.get(one.number) or self.names.get(one.number, "")
            name = name or write.word_of(one, given | self.names) or "value"
            wanted, count = name, 1
            while name in taken or name in found:
                count += 1
                name = f"{wanted}_{count}"
            found.append(name)
        return found

    def _kept_as(self, names: Sequence[str]) -> tuple[str, ...]:
        """What tapes call saved values: gates by their names."""
        found = list(names)
        for position, one in enumerate(self.saved):
            gate = self.gates.get(one.number, "")
            if gate and gate not in found:
                found[position] = gate
        return tuple(found)

    def _writer(self, given: dict[int, str], of: str) -> write.Writer:
        return write.Writer(given, self.names, of, _reserved())

    def _forward(self) -> str:
        sums = [*self.drawn, *self.sums]
        given = {one.number: name for one, name in (*sums, *self.old)}
        writer = self._writer(given, self.sums[0][1])
        named = [one.number for one in (*self.saved, *self.traced.new) if one.op != "input"]
        named += self.traced.names
        results = writer.write([*self.traced.new, *self.saved], named)
        many = len(self.traced.new)
        return self._text(
            writer, "forward", ["sums", "states"],
            [self._taken_apart(sums, "sums", writer, results),
             self._taken_apart([*self.old], "states", writer, results)],
            f"{write.packed(results[:many])}, {write.packed(results[many:])}",
        )  # fmt: skip

    def _inner(self) -> str:
        assert self.traced.inner is not None
        early = [*self.drawn, *self.sums[: self.early]]
        given = {one.number: name for one, name in (*early, *self.old)}
        writer = self._writer(given, self.sums[0][1])
        results = writer.write([self.traced.inner])
        return self._text(
            writer, "inner", ["early_sums", "states"],
            [self._taken_apart(early, "early_sums", writer, results),
             self._taken_apart(self.old, "states", writer, results)],
            results[0],
        )  # fmt: skip

    def _backward(self, saved_names: list[str], late: bool) -> str:
        saved = list(zip(self.saved, saved_names, strict=True))
        parts = [(self.d_new, "d_states"), (saved, "saved"), (self.old, "states")]
        given = {one.number: name for names, _ in parts for one, name in names}
        arguments = ["d_states", "saved", "states"]
        results = self.d_late if late else [*self.d_sums, *self.d_old]
        if not late and self.traced.inner is not None:
            arguments.append("d_inner")
            given[self.d_inner.number] = "d_inner"
        writer = self._writer(given, self.d_new[0][1])
        texts = writer.write(results, [one.number for one in results if one.args])
        heads = [self._taken_apart(names, value, writer, texts) for names, value in parts]
        many = len(self.d_sums)
        last = write.packed(texts)
        if not late:
            last = f"{write.packed(texts[:many])}, {write.packed(texts[many:])}"
        return self._text(writer, "late_backward" if late else "backward", arguments, heads, last)

    def _taken_apart(
        self, names: list[tuple[Symbol, str]], value: str, writer: write.Writer, texts: list[str]
    ) -> str:
        """The line that gives a tuple's values their names, `_` where nobody reads one."""
        body = " ".join([*(line for line in writer.lines), *texts])
        words = set(_WORD.findall(body))
        return write.unpacked([name if name in words else "_" for _, name in names], value)

    def _text(
        self, writer: write.Writer, name: str, arguments: list[str], heads: list[str], last: str
    ) -> str:
        self.functions |= writer.functions
        heads = [line for line in heads if re.search(r"[^_(),\s].* =", line)]
        return write.function(name, arguments, [*heads, *writer.lines, f"return {last}"])


def _compiled(name: str, source: str, texts: dict[str, str], called: set[str]) -> dict[str, Any]:
    """The functions of a source, as Numba's."""
    filename = f"<equations of {name}>"
    # Tracebacks and inspect.getsource find the text there.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace = {word: getattr(functions, word) for word in called}
    # A process that finds them on disk imports this; what is linked is to have names of its own.
    namespace["__name__"] = __name__
    exec(compile(source, filename, "exec"), namespace)
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    for word in texts:
        namespace[word].__qualname__ = f"{name}_{digest}.{word}"
    return {word: njit(namespace[word]) for word in texts}
