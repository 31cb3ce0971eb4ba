"""Derivatives in reverse mode: of each new state, back to the sums, states and parameters."""

from collections.abc import Mapping

from fastrnn_kernels.equations.symbols import DERIVATIVES, Graph, Symbol


def gradients(graph: Graph, outputs: Mapping[int, Symbol]) -> dict[int, Symbol]:
    """The gradients of all symbols that have one, by their numbers, as symbols of the same graph.

    outputs: those that are given.

    A symbol's gradient is the sum over all that is made of it, and symbols are made of earlier
    ones: so one walk from the last to the first finds every sum complete.
    """
    before, graph.factors = graph.factors, True
    try:
        found = dict(outputs)
        for number in range(max(outputs), -1, -1):
            if number in found:
                one = graph.symbols[number]
                for operand, gradient in _to_operands(graph, one, found[number]):
                    if not gradient.is_number(0):
                        old = found.get(operand.number)
                        found[operand.number] = gradient if old is None else old + gradient
        return found
    finally:
        graph.factors = before


def _to_operands(graph: Graph, one: Symbol, d: Symbol) -> list[tuple[Symbol, Symbol]]:
    """What a symbol's gradient gives its operands."""
    args = one.args
    if one.op in ("input", "number"):
        return []
    if one.op == "add":
        return [(args[0], d), (args[1], d)]
    if one.op == "sub":
        return [(args[0], d), (args[1], -d)]
    if one.op == "neg":
        return [(args[0], -d)]
    if one.op == "mul":
        return [(args[0], d * args[1]), (args[1], d * args[0])]
    if one.op == "div":
        return [(args[0], d / args[1]), (args[1], -(d * (one / args[1])))]
    if one.op == "where_at_most":
        a, b, then, otherwise = args
        zero = graph.constant(0.0)
        return [
            (then, graph.where_at_most(a, b, d, zero)),
            (otherwise, graph.where_at_most(a, b, zero, d)),
        ]
    (x,) = args
    derivative = DERIVATIVES[one.op](x, one)
    if derivative.op == "where_at_most":  # 0 or d, not 0 times d: as torch, NaN and inf pass
        return [(x, _chosen(graph, derivative, d))]
    return [(x, d * derivative)]


def _chosen(graph: Graph, derivative: Symbol, d: Symbol) -> Symbol:
    """D times a derivative of numbers that are chosen."""
    if derivative.op != "where_at_most":
        return graph.multiply(d, derivative)
    a, b, *ways = derivative.args
    then, otherwise = (_chosen(graph, way, d) for way in ways)
    return graph.where_at_most(a, b, then, otherwise)
