"""Symbols that stand for the numbers of equations, and the graph that they grow into.

A graph holds each value once: what is written twice, and an operation on numbers alone, make no
new symbol. Rewritten is what is exactly the same in floating point; where `factors` is set, as in
derivatives, also what is the same in exact arithmetic and costs less.
"""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastrnn_kernels.cells import functions
from fastrnn_kernels.equations.errors import error, place

#: Derivatives of the functions of one argument, of the argument and the value.
DERIVATIVES: dict[str, Callable[["Symbol", "Symbol"], Any]] = {}


class Graph:
    """The symbols of one cell's equations."""

    def __init__(self) -> None:
        self.symbols: list[Symbol] = []
        self.factors = False
        self._known: dict[Any, Symbol] = {}

    def of(self, op: str, *args: "Symbol", what: Any = None, key: Any = None) -> "Symbol":
        """The one symbol of an operation and what it is of."""
        key = op, what, *(key or [arg.number for arg in args])
        if key not in self._known:
            self._known[key] = Symbol(self, op, args, what, len(self.symbols))
            self.symbols.append(self._known[key])
        return self._known[key]

    def input(self, kind: str, name: str) -> "Symbol":
        """What is given: a "sum", its part "x" or "h", "late", a "state" or "unit", a gradient."""
        return self.of("input", what=(kind, name))

    def constant(self, value: float) -> "Symbol":
        """A plain number."""
        return self.of("number", what=float(value), key=[math.copysign(1.0, value)])

    def symbol(self, value: Any) -> "Symbol":
        """An operand as a symbol."""
        if isinstance(value, Symbol):
            if value.graph is not self:
                raise error("a symbol of another cell's equations stands among these")
            return value
        if isinstance(value, bool | np.bool_):
            raise error("a bool is no number of equations: write where(condition, a, b)")
        if isinstance(value, int | float | np.integer | np.floating):
            return self.constant(float(value))
        shape = getattr(value, "shape", None)
        if shape is not None and shape != ():
            raise error(
                f"an array {tuple(shape)} stands in equations of one unit: name it in "
                "per_unit=..., and read it as p.name"
            )
        raise error(f"a {type(value).__name__} is no number of equations")

    def add(self, a: "Symbol", b: "Symbol") -> "Symbol":
        """A + b."""
        if a.is_number(0):
            return b
        if b.is_number(0):
            return a
        if a.op == b.op == "number":
            return self.constant(a.what + b.what)
        if b.op == "neg":
            return self.subtract(a, b.args[0])
        if a.op == "neg":
            return self.subtract(b, a.args[0])
        if self.factors:
            common = _common(a, b)
            if common is not None:
                factor, of_a, of_b = common
                return self.multiply(factor, self.add(of_a, of_b))
        return self.of("add", a, b, key=sorted((a.number, b.number)))

    def subtract(self, a: "Symbol", b: "Symbol") -> "Symbol":
        """A - b."""
        if b.is_number(0):
            return a
        if a.is_number(0):
            return self.negative(b)
        if a.op == b.op == "number":
            return self.constant(a.what - b.what)
        if b.op == "neg":
            return self.add(a, b.args[0])
        if a is b and self.factors:
            return self.constant(0.0)
        if b.is_number(1) and a.op == "mul":  # 2 σ(2 x) - 1 = tanh(x)
            two, gate = sorted(a.args, key=lambda arg: arg.op != "number")
            if two.is_number(2) and gate.op == "sigmoid" and gate.args[0].op == "mul":
                twice, x = sorted(gate.args[0].args, key=lambda arg: arg.op != "number")
                if twice.is_number(2):
                    return self.call("tanh", x)
        if self.factors:
            common = _common(a, b)
            if common is not None:
                factor, of_a, of_b = common
                return self.multiply(factor, self.subtract(of_a, of_b))
        return self.of("sub", a, b)

    def negative(self, a: "Symbol") -> "Symbol":
        """-a."""
        if a.op == "neg":
            return a.args[0]
        if a.op == "number":
            return self.constant(-a.what)
        if a.op == "sub" and self.factors:
            return self.subtract(a.args[1], a.args[0])
        return self.of("neg", a)

    def multiply(self, a: "Symbol", b: "Symbol") -> "Symbol":
        """A b."""
        for one, other in ((a, b), (b, a)):
            if one.is_number(0):
                return self.constant(0.0)
            if one.is_number(1):
                return other
            if one.is_number(-1):
                return self.negative(other)
            if one.op == "neg":
                return self.negative(self.multiply(one.args[0], other))
        if a.op == b.op == "number":
            return self.constant(a.what * b.what)
        if self.factors:  # (0.5 a) 2: numbers come together
            for one, other in ((a, b), (b, a)):
                if one.op == "number" and other.op == "mul":
                    inner, rest = sorted(other.args, key=lambda arg: arg.op != "number")
                    if inner.op == "number":
                        return self.multiply(self.constant(one.what * inner.what), rest)
        return self.of("mul", a, b, key=sorted((a.number, b.number)))

    def divide(self, a: "Symbol", b: "Symbol") -> "Symbol":
        """A / b."""
        if b.is_number(1):
            return a
        if b.is_number(0):
            raise error("equations divide by 0")
        if a.op == b.op == "number":
            return self.constant(a.what / b.what)
        if b.op == "number" and math.frexp(b.what)[0] in (0.5, -0.5):
            return self.multiply(a, self.constant(1 / b.what))  # exact
        if a.is_number(1) and b.op == "add":  # 1 / (1 + e^-x) = σ(x)
            one, power = sorted(b.args, key=lambda arg: arg.op != "number")
            if one.is_number(1) and power.op == "exp":
                return self.call("sigmoid", self.negative(power.args[0]))
        return self.of("div", a, b)

    def call(self, name: str, x: "Symbol") -> "Symbol":
        """A function of one argument."""
        if x.op == "number":
            try:
                return self.constant(getattr(functions, name)(x.what))
            except ValueError:
                raise error(f"{name} has no value at {x.what:g}") from None
        if name == "tanh" and x.op == "neg":
            return self.negative(self.call("tanh", x.args[0]))
        if name == "log" and x.op == "sigmoid":  # log σ(x) = -softplus(-x), which never is log 0
            return self.negative(self.call("softplus", self.negative(x.args[0])))
        if name == "absolute" and x.op in ("neg", "absolute"):
            return self.call("absolute", x.args[0])
        return self.of(name, x)

    def where_at_most(
        self, a: "Symbol", b: "Symbol", then: "Symbol", otherwise: "Symbol"
    ) -> "Symbol":
        """`then` where a <= b, else `otherwise`."""
        if then is otherwise:
            return then
        if a.op == b.op == "number":
            return then if a.what <= b.what else otherwise
        return self.of("where_at_most", a, b, then, otherwise)


def _common(a: "Symbol", b: "Symbol") -> tuple["Symbol", "Symbol", "Symbol"] | None:
    """A factor of two products that is both's, and what is left of each."""
    if a.op != "mul" or b.op != "mul":
        return None
    for factor in a.args:
        if factor is b.args[0] or factor is b.args[1]:
            of_a, of_b = (one.args[one.args[0] is factor] for one in (a, b))
            return factor, of_a, of_b
    return None


def _operator(name: str, function: Callable[..., Any], swapped: bool = False) -> Any:
    def operation(self: "Symbol", other: Any) -> "Symbol":
        pair = [self, self.graph.symbol(other)]
        first, second = reversed(pair) if swapped else pair
        result: Symbol = getattr(self.graph, name)(first, second)
        return result

    operation.__doc__ = function.__doc__
    return operation


def _refused(why: str) -> Any:
    def refuse(self: "Symbol", *others: Any) -> Any:
        raise error(why)

    return refuse


_NO_CHOICE = (
    "equations are traced once, so Python cannot choose by a symbol (if, and, or, not, while, min, "
    "max): write where(condition, a, b), minimum or maximum"
)
_NO_NUMBER = (
    "a symbol has no value yet, so functions of math know nothing of it: write the one of "
    "fastrnn.equations, as in `from fastrnn.equations import tanh`"
)
_NO_PRODUCT = (
    "equations are those of one unit and have no products of matrices: W x and R h are in the "
    "gates' sums, a.name, a.name.x, a.name.h, or a.name(value) with another value in place of h"
)


class Symbol:
    """A number of equations that is not known yet."""

    __slots__ = ("args", "at", "graph", "number", "op", "what")

    def __init__(
        self, graph: Graph, op: str, args: tuple["Symbol", ...], what: Any, number: int
    ) -> None:
        self.graph, self.op, self.args, self.what, self.number = graph, op, args, what, number
        self.at = place()

    def is_number(self, value: float) -> bool:
        """Whether it is this plain number."""
        return self.op == "number" and bool(self.what == value)

    def below(self) -> Iterator["Symbol"]:
        """All that it is made of, and itself, each once; operands come first."""
        found: dict[int, Symbol] = {}
        waiting = [self]
        while waiting:
            one = waiting.pop()
            if one.number not in found:
                found[one.number] = one
                waiting += one.args
        return iter(found[number] for number in sorted(found))

    __add__ = _operator("add", operator.add)
    __radd__ = _operator("add", operator.add, swapped=True)
    __sub__ = _operator("subtract", operator.sub)
    __rsub__ = _operator("subtract", operator.sub, swapped=True)
    __mul__ = _operator("multiply", operator.mul)
    __rmul__ = _operator("multiply", operator.mul, swapped=True)
    __truediv__ = _operator("divide", operator.truediv)
    __rtruediv__ = _operator("divide", operator.truediv, swapped=True)

    def __neg__(self) -> "Symbol":
        return self.graph.negative(self)

    def __pos__(self) -> "Symbol":
        return self

    def __abs__(self) -> "Symbol":
        return self.graph.call("absolute", self)

    def __pow__(self, exponent: Any) -> "Symbol":
        if exponent == 1:
            return self
        if isinstance(exponent, int) and 2 <= exponent <= 8:
            half: Symbol = self ** (exponent // 2)
            square: Symbol = half * half
            return self.graph.multiply(square, self) if exponent % 2 else square
        raise error(
            f"the power {exponent!r}: wanted a whole number from 1 to 8; of others write sqrt(x) "
            "or exp(k * log(x))"
        )

    def __le__(self, other: Any) -> "Condition":
        return Condition(self, self.graph.symbol(other), strict=False)

    def __ge__(self, other: Any) -> "Condition":
        return Condition(self.graph.symbol(other), self, strict=False)

    def __lt__(self, other: Any) -> "Condition":
        return Condition(self, self.graph.symbol(other), strict=True)

    def __gt__(self, other: Any) -> "Condition":
        return Condition(self.graph.symbol(other), self, strict=True)

    __hash__ = object.__hash__
    __eq__ = _refused("equations cannot ask whether two values are equal: write a <= b or a >= b")
    __ne__ = __eq__
    __bool__ = _refused(_NO_CHOICE)
    __float__ = __int__ = __index__ = __complex__ = __round__ = _refused(_NO_NUMBER)
    __matmul__ = __rmatmul__ = _refused(_NO_PRODUCT)
    __iter__ = __getitem__ = __len__ = _refused(
        "a symbol is one unit's number and has no elements: units know nothing of each other "
        "but through the gates' sums"
    )
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __rpow__ = _refused(
        "this operation has no derivative: equations have + - * / ** and the functions of "
        "fastrnn.equations"
    )

    def __array_ufunc__(self, function: Any, method: str, *operands: Any, **_: Any) -> Any:
        """Operators between NumPy's numbers and symbols; NumPy's other functions are refused."""
        name = function.__name__
        known = {
            "add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
            "divide": operator.truediv, "less_equal": operator.le, "less": operator.lt,
            "greater_equal": operator.ge, "greater": operator.gt,
        }  # fmt: skip
        if method == "__call__" and name in known:
            first, second = map(self.graph.symbol, operands)
            return known[name](first, second)
        if name == "matmul":
            raise error(_NO_PRODUCT)
        raise error(f"np.{name} knows no symbols: write the one of fastrnn.equations")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise error(
            f"np.{function.__name__} knows no symbols: "
            + (_NO_PRODUCT if function.__name__ in ("dot", "einsum") else "write where, minimum")
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise error("a symbol is no array: functions of NumPy know nothing of it")

    def __repr__(self) -> str:
        if self.op == "number":
            return f"{self.what:g}"
        if self.op == "input":
            return str(self.what[1])
        return f"{self.op}({', '.join(map(repr, self.args))})"


class Condition:
    """Whether a <= b, or a < b: for `where`."""

    __slots__ = ("a", "b", "strict")

    def __init__(self, a: Symbol, b: Symbol, strict: bool) -> None:
        self.a, self.b, self.strict = a, b, strict

    def choose(self, then: Symbol, otherwise: Symbol) -> Symbol:
        """`then` where it holds, else `otherwise`, as where a or b is NaN."""
        graph = self.a.graph
        found = graph.where_at_most(self.a, self.b, then, otherwise)
        return graph.where_at_most(self.b, self.a, otherwise, found) if self.strict else found

    __bool__ = _refused(_NO_CHOICE)
    __and__ = __or__ = __invert__ = _refused(
        "conditions are not joined: write where(first, where(second, a, b), b)"
    )
