"""What the forward pass keeps for the backward pass, and what that computes anew.

To keep a value costs its way to memory and back; to compute it anew costs its operations, and that
what it is made of is there. A gate's sum cannot be computed anew. The cheapest choice is searched
for: from all that the backward pass reads, by leaving out, adding and exchanging.
"""

from collections.abc import Collection, Sequence

from fastrnn_kernels.equations.symbols import Symbol

#: What operations cost, in additions, counted from the instructions that `cpu/isa` makes of them.
#: All others cost 1.
COST = {
    "div": 5, "sqrt": 6, "exp": 14, "sigmoid": 18, "tanh": 18, "expm1": 18, "log": 16, "log1p": 18,
    "softplus": 32, "sin": 20, "cos": 20, "erf": 28,
}  # fmt: skip
#: What it costs to keep a value: a store and a load. Tapes are larger than caches, so both go to
#: memory; a sigmoid costs less than that, and two operations of the kind cost more.
KEPT = 24


def kept(
    needed: Sequence[Symbol],
    at_hand: Collection[int],
    always: Collection[int],
    never: Collection[int],
) -> list[Symbol]:
    """The symbols to keep, so that all needed ones can be had, in the order of the equations.

    needed: what the backward pass reads. at_hand: the numbers of what it is given anyhow (states,
    parameters). always, never: numbers of symbols that somebody has decided on.
    """
    symbols = {one.number: one for need in needed for one in need.below()}
    wanted = [need.number for need in needed if need.op != "number"]
    choices = [
        number
        for number, one in symbols.items()
        if number not in at_hand and number not in never and one.op != "number"
    ]

    def cost(chosen: frozenset[int]) -> float:
        total, seen, waiting = float(KEPT * len(chosen)), set(chosen), list(wanted)
        while waiting:
            number = waiting.pop()
            if number in seen or number in at_hand:
                continue
            seen.add(number)
            one = symbols[number]
            if one.op == "input":
                return float("inf")  # a sum that nobody keeps
            if one.op != "number":
                total += COST.get(one.op, 1)
                waiting += [arg.number for arg in one.args]
        return total

    fixed = frozenset(always) & frozenset(symbols)
    best = fixed | {number for number in wanted if number in choices}
    if cost(best) == float("inf"):
        best |= {number for number in choices if symbols[number].op == "input"}
    least = cost(best)
    while True:
        moves = [best - {n} for n in best - fixed] + [best | {n} for n in choices if n not in best]
        moves += [best - {n} | {m} for n in best - fixed for m in choices if m not in best]
        found, move = min(((cost(move), sorted(move)) for move in moves), default=(least, []))
        if found >= least:
            return [symbols[number] for number in sorted(best)]
        least, best = found, frozenset(move)
