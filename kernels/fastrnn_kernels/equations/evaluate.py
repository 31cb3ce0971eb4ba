"""Equations as they were traced, evaluated on arrays by the functions of any framework."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fastrnn_kernels.equations.symbols import Symbol
from fastrnn_kernels.equations.trace import Traced

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
}
#: Products with R, by gate.
Parts = Mapping[str, Any]


class Equations:
    """The equations of a cell, to be evaluated step by step.

    functions: what a framework computes operations with, by their names (`PRIMITIVES`, and
    `where_at_most`, whose operands may be plain numbers).
    """

    def __init__(self, traced: Traced, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.traced = traced
        self._functions = {**_OPERATORS, **functions}
        #: gates that have an h-part, in the order of the rows of weight_hh
        self.recurrent = tuple(gate for gate in traced.gates if gate not in traced.x_only)
        #: of these, those whose R multiplies h itself
        self.early = tuple(gate for gate in self.recurrent if gate not in traced.late)
        self._inner = [] if traced.inner is None else [*traced.inner.below()]
        below = {one.number: one for new in traced.new for one in new.below()}
        self._new = [below[number] for number in sorted(below)]

    def step(
        self,
        from_x: Parts,
        from_h: Parts,
        late: Callable[[Any], Parts],
        states: Sequence[Any],
        units: Sequence[Any],
    ) -> list[Any]:
        """The new states of a step; what does not depend on an array is a plain number.

        from_x: W x + b of each gate; from_h: R h + b of the early ones; late: gives R value + b of
        the late ones; units: the parameters of each unit.
        """
        traced, values = self.traced, dict[int, Any]()
        given = {("x", gate): value for gate, value in from_x.items()}
        given |= {("h", gate): value for gate, value in from_h.items()}
        given |= {("state", name): one for name, one in zip(traced.states, states, strict=True)}
        given |= {("unit", name): one for name, one in zip(traced.per_unit, units, strict=True)}
        if traced.inner is not None:
            self._evaluate(self._inner, given, values)
            products = late(values[traced.inner.number])
            given |= {("late", gate): from_x[gate] + value for gate, value in products.items()}
        self._evaluate(self._new, given, values)
        return [values[new.number] for new in traced.new]

    def _evaluate(
        self, symbols: Iterable[Symbol], given: Mapping[Any, Any], values: dict[int, Any]
    ) -> None:
        """The values of symbols, operands first, by their numbers."""
        for one in symbols:
            if one.number in values:
                continue
            if one.op == "number":
                value = one.what
            elif one.op != "input":
                operands = [values[arg.number] for arg in one.args]
                value = self._functions[one.op](*operands)
            elif one.what[0] == "sum":
                value = given["x", one.what[1]] + given["h", one.what[1]]
            else:
                value = given[one.what[:2]]
            values[one.number] = value
