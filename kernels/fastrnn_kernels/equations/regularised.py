"""Equations with zoneout, or with dropout of a gate: as they train, and what is expected of them.

Zoneout leaves some units their old state, m drawn as 1 with the rate z; what is expected of it has
the rate in the place of the draw:

    training    s' = s where m, else s_new
    expected    s' = z s + (1 - z) s_new

D. Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations",
arXiv:1606.01305, Sec. 3. The rates are parameters of each unit there, so that one kernel has all.

Dropout of the candidate multiplies what a step adds to the state, g of the LSTM and n of the GRU,
by m, drawn as 0 with its rate, else 1 / (1 - rate), so that what is expected is the cell itself:

    c' = f c + i (m g)        h' = (1 - z) (m n) + z h

S. Semeniuta, A. Severyn, E. Barth, "Recurrent Dropout without Memory Loss", arXiv:1603.05118,
Sec. 3.
"""

from functools import cache

from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.draws import DROPPED, ZONEOUT
from fastrnn_kernels.equations.define import Derived, of_traced
from fastrnn_kernels.equations.symbols import Graph, Symbol
from fastrnn_kernels.equations.trace import Traced


@cache
def training(derived: Derived, zoneout: tuple[str, ...], dropped: str | None) -> Cell:
    """The cell with drawn values: of a gate that is dropped, if any, then of states' zoneout."""
    traced = _copied(derived.traced, dropped)
    graph, new = traced.graph, list(traced.new)
    for k, state in enumerate(traced.states):
        if state in zoneout:
            draw = graph.input("drawn", ZONEOUT.format(state))
            old, half = graph.input("state", state), graph.constant(0.5)
            new[k] = graph.where_at_most(draw, half, new[k], old)
    names = [DROPPED.format(dropped)] * (dropped is not None)
    names += [ZONEOUT.format(state) for state in traced.states if state in zoneout]
    name = "-".join([traced.name, *names])
    return of_traced(traced._replace(name=name, new=tuple(new), drawn=tuple(names))).cell


@cache
def expected(derived: Derived, zoneout: tuple[str, ...]) -> Cell:
    """The cell with the rates of states' zoneout as the last of its parameters per unit."""
    traced = _copied(derived.traced)
    graph, new, names = traced.graph, list(traced.new), list(traced.per_unit)
    for k, state in enumerate(traced.states):
        if state in zoneout:
            names.append(ZONEOUT.format(state))
            rate, old = graph.input("unit", names[-1]), graph.input("state", state)
            new[k] = rate * old + (1 - rate) * new[k]
    name = "-".join([traced.name, "expected", *names[len(traced.per_unit) :]])
    return of_traced(traced._replace(name=name, new=tuple(new), per_unit=tuple(names))).cell


def _copied(traced: Traced, dropped: str | None = None) -> Traced:
    """The same equations in a graph of their own, in which a gate may be multiplied by a draw."""
    graph = Graph()
    roots = [*traced.new, *([traced.inner] if traced.inner is not None else [])]
    below = {one.number: one for root in roots for one in root.below()}
    gate = next((n for n, word in traced.names.items() if word == dropped), None)
    if dropped is not None and gate not in below:
        raise ValueError(f"the equations of {traced.name} have no line {dropped!r}")
    found: dict[int, Symbol] = {}  # what stands for a value where it is used
    plain: dict[int, Symbol] = {}  # and the value itself
    for number in sorted(below):
        one = below[number]
        plain[number] = found[number] = _same(graph, one, found)
        if number == gate:
            found[number] = found[number] * graph.input("drawn", DROPPED.format(dropped))
    return traced._replace(
        graph=graph,
        new=tuple(found[one.number] for one in traced.new),
        names={plain[n].number: word for n, word in traced.names.items() if n in plain},
        inner=None if traced.inner is None else found[traced.inner.number],
    )


def _same(graph: Graph, one: Symbol, found: dict[int, Symbol]) -> Symbol:
    """A symbol of another graph in this one."""
    if one.op == "number":
        return graph.constant(one.what)
    if one.op == "input":
        what = one.what
        if what[0] == "late":  # which names the value that stands in place of h by its number
            what = (*what[:2], found[what[2]].number)
        return graph.of("input", what=what)
    args = [found[arg.number] for arg in one.args]
    numbers = sorted(arg.number for arg in args)
    key = numbers if one.op in ("add", "mul") else None
    return graph.of(one.op, *args, what=one.what, key=key)
