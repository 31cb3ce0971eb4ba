"""The gate before the clock: a contender whose numbers are wrong is not timed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn.bench import reference
from fastrnn.bench.cases import LOW, Case
from fastrnn.bench.data import Array, answer, sample, weights

# Largest error of an array over its largest value. A gradient of the weights sums up to T*B
# products; measured over all suites, fastrnn stays below 5e-6 in float32.
# bfloat16 keeps 8 bits of each factor, int8 7 of a weight beside the largest of its row; over
# all suites they stay below 1.2e-2.
TOLERANCE = {"float32": 2e-5, "float64": 1e-10, "bfloat16": 2.5e-2, "int8": 2.5e-2}

# A peer may be coarser: that can only make it look faster. Torch's RNN on a Xeon is off by up to
# 5.1e-5, more in one run than in another. What has to be caught is other numbers: a mistaken
# gate, a step that is missing, bfloat16 where float32 was asked for (1e-3 and more).
# Torch keeps states, too, in bfloat16.
PEER_TOLERANCE = TOLERANCE | {"float32": 2e-4, "bfloat16": 6e-2}


def _wide(values: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(value.astype(np.float64) for value in values)


def truth(case: Case, index: int = 0) -> dict[str, Array]:
    """What every contender must give for input `index` of a case, in float64."""
    given = sample(case, index)
    exact = {name: value.astype(np.float64) for name, value in weights(case).items()}
    x = given.x.astype(np.float64)
    if case.stepwise:
        x = x[None]
    y, state, tape = reference.forward(case.cell, exact, x, _wide(given.state), given.lengths)
    if case.stepwise:
        return answer(None, state)
    if case.pass_ == "forward":
        return answer(y, state)
    assert given.dy is not None
    dx, dstate, parameters = reference.backward(
        case.cell, exact, tape, given.dy.astype(np.float64), _wide(given.dstate)
    )
    return answer(y, state, dx, dstate, parameters)


def difference(
    got: Mapping[str, Array],
    want: Mapping[str, Array],
    dtype: str,
    tolerance: Mapping[str, float] = TOLERANCE,
) -> str | None:
    """What is wrong with an answer computed in `dtype`, in a sentence; None if nothing is."""
    arrays = "float32" if dtype in LOW else dtype
    if got.keys() != want.keys():
        return f"gave {sorted(got)}, wanted {sorted(want)}"
    for name, expected in want.items():
        found = got[name]
        if found.dtype != np.dtype(arrays):
            return f"{name} is {found.dtype}, wanted {arrays}"
        if found.shape != expected.shape:
            return f"{name} has shape {found.shape}, wanted {expected.shape}"
        scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
        error = float(np.max(np.abs(found - expected), initial=0.0)) / scale
        # so that NaN, which is never <= anything, is wrong too
        if not error <= tolerance[dtype]:
            return (
                f"{name} differs from the reference by {error:.1e} of its largest value, "
                f"{tolerance[dtype]:.0e} is allowed"
            )
    return None
