"""A user's function of equations, run once on symbols."""

import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

from fastrnn_kernels.equations.errors import EquationError, error, place, place_of, told
from fastrnn_kernels.equations.symbols import Graph, Symbol


class Traced(NamedTuple):
    """What equations are made of.

    new: the new states. names: what the user's lines call symbols, by their numbers. whole,
    apart, x_only, late: the gates by how their sums are used; inner: what the late ones multiply.
    code: the user's function. drawn: values that are drawn for each unit, which
    no function of a user's has (`regularised.py`).
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    per_unit: tuple[str, ...]
    graph: Graph
    new: tuple[Symbol, ...]
    names: dict[int, str]
    apart: tuple[str, ...]
    x_only: tuple[str, ...]
    late: tuple[str, ...]
    inner: Symbol | None
    code: CodeType
    drawn: tuple[str, ...] = ()


class _Names:
    """Symbols by name, as attributes: the states, the parameters of each unit."""

    def __init__(self, graph: Graph, kind: str, what: str, names: Sequence[str]) -> None:
        self.__dict__.update(
            _what=what,
            _values={name: graph.input(kind, name) for name in names},
        )

    def __getattr__(self, name: str) -> Any:
        known = self._values
        if name not in known:
            raise _unknown(self._what, name, known)
        return known[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise error(
            f"equations change nothing in place: return the new states, in order, and call {name} "
            "by a name of its own"
        )


def _unknown(what: str, name: str, known: Any) -> Exception:
    if name.startswith("__"):
        return AttributeError(name)
    found = ", ".join(known) or "none"
    argument = {"gate": "gates", "state": "states"}.get(what, "per_unit")
    return error(f"no {what} {name!r}: this cell has {found}; name it in {argument}=...")


class _Gates(_Names):
    """The gates' sums by name."""

    def __init__(self, graph: Graph, names: Sequence[str]) -> None:
        self.__dict__.update(_what="gate", _values={name: Sum(graph, name) for name in names})


class Sum(Symbol):
    """A gate's sum W x + b + R h; its parts, `.x` and `.h`; called, R of another value than h."""

    __slots__ = ("name",)

    def __init__(self, graph: Graph, name: str) -> None:
        whole = graph.input("sum", name)
        super().__init__(graph, whole.op, whole.args, whole.what, whole.number)
        graph.symbols[whole.number] = self
        graph._known[("input", whole.what)] = self
        self.name = name

    @property
    def x(self) -> Symbol:
        """Its part W x + b."""
        return self.graph.input("x", self.name)

    @property
    def h(self) -> Symbol:
        """Its part R h + b."""
        return self.graph.input("h", self.name)

    def __call__(self, value: Any) -> Symbol:
        """W x + b + R value."""
        given = self.graph.symbol(value)
        if given.op == "number":
            raise error(f"gate {self.name!r} is given the number {given.what:g} in place of h")
        if given.op == "input" and given.what == ("state", "h"):
            return self
        return self.graph.of("input", what=("late", self.name, given.number))


def trace(
    function: Callable[..., Any],
    gates: tuple[str, ...],
    states: tuple[str, ...],
    per_unit: tuple[str, ...],
) -> Traced:
    """Run a function (gates' sums, states[, parameters of each unit]) once.

    Raises EquationError, with the user's line, for what is no cell's equations.
    """
    graph = Graph()
    a, s = _Gates(graph, gates), _Names(graph, "state", "state", states)
    p = _Names(graph, "unit", "parameter of each unit", per_unit)
    code = _code_of(function)
    wanted = 3 if per_unit else 2
    if code.co_argcount != wanted or code.co_flags & 0x0C:  # *args, **kwargs
        raise error(
            f"{function.__name__} takes {code.co_argcount} arguments, wanted {wanted}: the gates' "
            "sums, the states" + (", the parameters of each unit" if per_unit else ""),
            place_of(code),
        )
    given = (a, s, p)[:wanted]
    try:
        result, local = _called(function, code, given)
    except EquationError:
        raise
    except Exception as problem:
        line = place() or place_of(code)
        traceback = problem.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code is code:
                line = told(code.co_filename, traceback.tb_lineno)
            traceback = traceback.tb_next
        raise error(
            f"{type(problem).__name__} in the equations of {function.__name__}: {problem}", line
        ) from problem
    new = _results(graph, function.__name__, result, states, code)
    return _checked(function.__name__, graph, new, local, gates, states, per_unit, code)


def _code_of(function: Any) -> CodeType:
    code = getattr(function, "__code__", None)
    if code is None:
        raise EquationError(
            f"equations are a {type(function).__name__}, wanted a function: @fastrnn.cell(...) "
            "stands above a def"
        )
    found: CodeType = code
    return found


def _called(
    function: Callable[..., Any], code: CodeType, given: tuple[Any, ...]
) -> tuple[Any, dict[str, Any]]:
    """What a function returns, and its local names as it does."""
    local: dict[str, Any] = {}
    before = sys.getprofile()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "return" and frame.f_code is code:
            local.update(frame.f_locals)

    sys.setprofile(watch)
    try:
        result = function(*given)
    finally:
        sys.setprofile(before)
    return result, local


def _results(
    graph: Graph, name: str, result: Any, states: tuple[str, ...], code: CodeType
) -> tuple[Symbol, ...]:
    at = place_of(code)
    many = result if isinstance(result, tuple | list) else (result,)
    if len(many) != len(states):
        raise error(
            f"{name} returns {len(many)} values, wanted {len(states)}: the new "
            f"{', '.join(states)}, in order",
            at,
        )
    new = []
    for state, value in zip(states, many, strict=True):
        if not isinstance(value, Symbol):
            raise error(
                f"the new {state} of {name} is {value!r}, wanted what follows from the gates' sums",
                at,
            )
        new.append(graph.symbol(value))
    return tuple(new)


def _checked(
    name: str,
    graph: Graph,
    new: tuple[Symbol, ...],
    local: dict[str, Any],
    gates: tuple[str, ...],
    states: tuple[str, ...],
    per_unit: tuple[str, ...],
    code: CodeType,
) -> Traced:
    """How the gates' sums are used, or an error for uses that no kernel has."""
    at = place_of(code)
    used = _inputs(new)
    late = tuple(gate for gate in gates if any(one[:2] == ("late", gate) for one in used))
    inner = _inner(graph, used, late, at)
    if inner is not None:
        used |= _inputs((inner,))
    apart: list[str] = []
    x_only: list[str] = []
    for gate in gates:
        whole, x, h = (any(one[:2] == (kind, gate) for one in used) for kind in ("sum", "x", "h"))
        if not (whole or x or h or gate in late):
            raise error(
                f"gate {gate!r} of {name} is never used: use a.{gate}, or take it out of gates=...",
                at,
            )
        if whole + (x or h) + (gate in late) > 1:
            raise error(
                f"gate {gate!r} of {name} is used in several ways: wanted the whole sum a.{gate}, "
                f"or its parts a.{gate}.x and a.{gate}.h, or a.{gate}(value)",
                at,
            )
        if h and not x:
            raise error(
                f"gate {gate!r} of {name} never uses a.{gate}.x: wanted a.{gate}.x and "
                f"a.{gate}.h, or a.{gate} for their sum",
                at,
            )
        if x:
            (apart if h else x_only).append(gate)
    for state in states[1:]:
        if ("state", state) not in used:
            raise error(
                f"nothing reads the state {state!r} of {name}: use s.{state}, or take it out of "
                "states=...",
                at,
            )
    if len(x_only) == len(gates) and not any(kind == "state" for kind, *_ in used):
        raise error(f"nothing reads a state of {name}, so it is no recurrent cell", at)
    for parameter in per_unit:
        if ("unit", parameter) not in used:
            raise error(
                f"the parameter {parameter!r} of {name} is never used: use p.{parameter}, or take "
                "it out of per_unit=...",
                at,
            )
    if late and (len(states) > 1 or len(late) == len(gates) or apart):
        raise error(
            f"gate {late[0]!r} of {name} has another value in place of h, which kernels have for "
            "cells of the one state h, with another gate, and no gate's parts apart",
            at,
        )
    names = {
        value.number: word
        for word, value in local.items()
        if isinstance(value, Symbol) and value.op not in ("input", "number")
    }
    return Traced(
        name, gates, states, per_unit, graph, new, names, tuple(apart), tuple(x_only), late, inner,
        code,
    )  # fmt: skip


def _inputs(symbols: Sequence[Symbol]) -> set[Any]:
    return {one.what for symbol in symbols for one in symbol.below() if one.op == "input"}


def _inner(graph: Graph, used: set[Any], late: tuple[str, ...], at: str) -> Symbol | None:
    values = {what[2] for what in used if what[0] == "late"}
    if not values:
        return None
    if len(values) > 1:
        raise error(
            f"the gates {', '.join(late)} have different values in place of h: wanted one", at
        )
    inner: Symbol = graph.symbols[values.pop()]
    if any(what[0] in ("late", "x", "h") for what in _inputs((inner,))):
        raise error("what stands in place of h depends on whole sums and states alone", at)
    return inner
