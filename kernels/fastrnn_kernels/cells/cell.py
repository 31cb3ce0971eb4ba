"""What a cell is: its gates, its states, and two functions of one unit."""

import hashlib
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: What the parameters of every cell are called.
PARAMETERS = (
    "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "norm_ih", "norm_hh",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cell:
    """A recurrent cell, as the equations of one unit.

    The functions take and return tuples of scalars; they are jitted, know no arrays and
    no indices, and serve every device:

        forward(sums, states)                -> (new states, saved)
        backward(d_states, saved, states)    -> (d_sums, d_old_states)

    `states` are the old states, h first; `saved` is what backward needs beside them.
    `sums` are the gates' pre-activations in the order of `Cell.sums`: a gate's
    W x + b_ih + R h + b_hh arrives as one sum, but for the gates named in `apart`, whose
    x-part W x + b_ih and h-part R h + b_hh arrive as two. The gates named in `x_only` have no
    h-part: W x + b_ih is their sum, and weight_hh and bias_hh have rows for the other gates alone.

    The gates named in `late` multiply, in place of h, the value that
    `inner(early sums, states)` gives for each unit. Their backward comes in two steps:

        late_backward(d_states, saved, states)      -> d_late_sums
        backward(d_states, saved, states, d_inner)  -> (d_early_sums, d_old_states)

    The parameters named in `per_unit` have a value for each unit, as the weights of peepholes.
    Wherever a function is given old states, these stand behind them, and `backward` gives their
    gradients behind those of the states:

        forward(sums, (h, c, p))              -> ((h, c), saved)
        backward(d_states, saved, (h, c, p))  -> (d_sums, (dh, dc, dp))

    The values named in `drawn` are drawn for each unit at each step (`draws.py`), in training. They
    stand in front of the sums that `forward` and `inner` are given; `sums`, and the gradients of
    these, are without them:

        forward((drawn, a), (h,)) -> ((h,), saved)

    Everything that is written for any cell goes by its counts:

        G gates, of them X without an h-part and GH with one; of the GH, A apart, L late, and E
        early (all but the late ones)
        S sums, N states, K saved values, Q parameters per unit, D drawn values
    """

    name: str
    gates: tuple[str, ...]  # in the order of the rows of the weights
    states: tuple[str, ...]  # h first
    saved: tuple[str, ...]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    apart: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    inner: Callable[..., Any] | None = None
    late_backward: Callable[..., Any] | None = None
    reads_h: bool = True  # whether forward uses h of its own unit; if not, h may be projected
    per_unit: tuple[str, ...] = ()  # parameters (H,), named as the model's are to be
    x_only: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    #: gates with an h-part, in the order of the rows of weight_hh
    recurrent: tuple[str, ...] = field(init=False)
    #: gates in the order of the x-parts, the first of the sums
    x_gates: tuple[str, ...] = field(init=False)
    #: gates in the order of the h-parts, the last of the sums
    h_gates: tuple[str, ...] = field(init=False)
    #: those of the h-parts that multiply h itself
    early: tuple[str, ...] = field(init=False)
    #: gates without an h-part, x-parts that stand apart, whole sums, h-parts that stand apart: so
    #: one product of either kind writes or reads one run of columns
    sums: tuple[str, ...] = field(init=False)
    #: its name and a hash of its equations, under which compiled kernels are kept
    key: str = field(init=False)
    #: the counts of `gates`, `x_only`, `recurrent`, `apart`, `late` and `early`
    G: int = field(init=False)
    X: int = field(init=False)
    GH: int = field(init=False)
    A: int = field(init=False)
    L: int = field(init=False)
    E: int = field(init=False)
    #: of `sums`, `states`, `saved`, `per_unit` and `drawn`
    S: int = field(init=False)
    N: int = field(init=False)
    K: int = field(init=False)
    Q: int = field(init=False)
    D: int = field(init=False)

    def __post_init__(self) -> None:
        if self.late and (len(self.states) > 1 or set(self.late) == set(self.gates)):
            raise ValueError(f"cell {self.name}: late gates want one state and an early gate")
        if self.apart and self.late:
            raise ValueError(f"cell {self.name}: gates may be apart or late, not both")
        if set(self.x_only) & set(self.apart + self.late):
            raise ValueError(f"cell {self.name}: gates that are x_only have no h-part")
        if set(self.x_only + self.apart + self.late) - set(self.gates):
            raise ValueError(f"cell {self.name}: x_only, apart and late name gates, {self.gates}")
        if bool(self.late) != bool(self.inner and self.late_backward):
            raise ValueError(f"cell {self.name}: late gates, inner and late_backward go together")
        if len({*self.per_unit, *PARAMETERS}) < len(self.per_unit) + len(PARAMETERS):
            raise ValueError(
                f"cell {self.name}: per_unit is {self.per_unit}, wanted names that differ, also "
                f"from {', '.join(PARAMETERS)}"
            )

        others = self.x_only + self.apart + self.late
        whole = tuple(g for g in self.gates if g not in others) + self.late
        apart_x, apart_h = (tuple(f"{g}_{part}" for g in self.apart) for part in "xh")
        h_gates, sums = whole + self.apart, self.x_only + apart_x + whole + apart_h
        early = len(h_gates) - len(self.late)
        found = {
            "recurrent": tuple(g for g in self.gates if g not in self.x_only),
            "x_gates": self.x_only + self.apart + whole,
            "h_gates": h_gates,
            "early": h_gates[:early],
            "sums": sums,
            "key": f"{self.name}-{self._digest()}",
            "G": len(self.gates),
            "X": len(self.x_only),
            "GH": len(h_gates),
            "A": len(self.apart),
            "L": len(self.late),
            "E": early,
            "S": len(sums),
            "N": len(self.states),
            "K": len(self.saved),
            "Q": len(self.per_unit),
            "D": len(self.drawn),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def _digest(self) -> str:
        digest = hashlib.sha256(repr((self.gates, self.states, self.saved)).encode())
        digest.update(repr((self.apart, self.late)).encode())
        named = ("x_only", self.x_only), ("drawn", self.drawn)
        for more in (self.per_unit, *(one[1] and one for one in named)):
            if more:
                digest.update(repr(more).encode())
        for function in (self.forward, self.backward, self.inner, self.late_backward):
            if function is not None:
                code = getattr(function, "py_func", function).__code__
                constants = [c for c in code.co_consts if not isinstance(c, types.CodeType)]
                digest.update(code.co_code + repr((code.co_names, constants)).encode())
        return digest.hexdigest()[:12]
