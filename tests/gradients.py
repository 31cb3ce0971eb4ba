"""Gradients of a layer against finite differences of the reference, in float64.

Every element of every parameter, of the input and of the initial state is moved.
"""

from typing import Any
from unittest import mock

import numpy as np

import reference
from cases import CELLS, Problem, as_state, assert_close, expected, states

T, B, I, H = 4, 3, 2, 3
#: A central difference errs by some 1e-10 (see reference.STEP), times the few dozen terms
#: of order 1 that the loss adds up.
TOLERANCE = 1e-8

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "lengths": {"lengths": np.array([2, 0, 4]), "bidirectional": True},
    "reset": {
        "reset": np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]], bool),
        "bidirectional": True,
    },
    "two layers, lengths and reset": {
        "num_layers": 2,
        "lengths": np.array([3, 4, 1]),
        "reset": np.array([[0, 0, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0]], bool),
    },
    "no bias": {"bias": False},
}


def check(cell: str, layer: Any, p: Problem, **arguments: Any) -> None:
    """Compares all gradients of sum(y * dy) + sum(state * dstate)."""
    kind, options = CELLS[cell]
    if cell == "RNN-relu":  # no pre-activation may cross 0 while a value is moved by 1e-5
        margins: list[float] = []

        def relu(a: Any) -> Any:
            margins.append(np.abs(a).min())
            return np.maximum(a, 0)

        with mock.patch.dict(reference.ACTIVATIONS, relu=relu):
            expected(cell, layer, p, **arguments)
        assert min(margins) > 1e-3, "take another seed"
    _, _, tape = layer.forward(p.x, as_state(p.state), **arguments)
    found = layer.backward(tape, p.dy, as_state(p.dstate))
    parameters = layer.state_dict()

    assert list(found.parameters) == list(parameters)
    start = {f"state {k}": part for k, part in enumerate(p.state)}

    def loss(given: dict[str, Any]) -> Any:
        state = tuple(given[name] for name in start)
        y, final, _ = reference.layer(kind, given, given["x"], state, **arguments, **options)
        return reference.inner((y, *final), (p.dy, *p.dstate))

    gradients = dict(zip(start, states(found.state), strict=True)) | {"x": found.x}
    gradients |= found.parameters
    wanted = reference.finite_differences(loss, {"x": p.x} | start | parameters)
    for name, gradient in wanted.items():
        assert_close(gradients[name], gradient, TOLERANCE, name)
