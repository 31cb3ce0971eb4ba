"""What the tests of cells and layers share: the cells by name, random problems, comparisons."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import fastrnn
import reference
from fastrnn_kernels.cells import registry

Array = np.ndarray[Any, Any]


def title(entry: registry.Entry) -> str:
    """A cell's name in the grids: its kind, and what its equations' name has beside it."""
    return entry.kind + entry.cell.name.replace("_", "-").removeprefix(entry.kind.lower())


def usual(kind: str) -> registry.Entry:
    """What a layer has where no option is given, here and in torch."""
    return registry.of_kind(kind)[0]


#: Every cell that is registered, but for those that a test's module has defined by then: the class
#: of the layer, and what tells it from the usual one.
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    title(entry): (entry.kind, {} if entry is usual(entry.kind) else dict(entry.options))
    for entry in registry.CELLS.values()
    if not entry.defined
}
#: torch has no GRU that resets before the product.
CELLS_IN_TORCH = [title(entry) for entry in registry.CELLS.values() if entry.torch]
DTYPES = ["float32", "float64"]

#: The bound on an error, as `assert_close` scales it. A float32 rounds at 6e-8; chains of
#: some 100 sums, T steps of feedback and gates good to 1e-7 make a few 1e-6 of it, and the
#: same holds for torch's float32. A float64 rounds at 1e-16: a hundred times 1e-13 is left.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def make(cell: str, *sizes: int, **arguments: Any) -> Any:
    """A fastrnn layer of the named cell, with seeded weights."""
    kind, options = CELLS[cell]
    return getattr(fastrnn, kind)(*sizes, **{"seed": 0} | options | arguments)


def make_cell(cell: str, *sizes: int, **arguments: Any) -> Any:
    """A fastrnn cell of the named kind, with seeded weights."""
    kind, options = CELLS[cell]
    return getattr(fastrnn, kind + "Cell")(*sizes, **{"seed": 0} | options | arguments)


def states(state: Any) -> tuple[Array, ...]:
    """A state as a tuple: (h,) or (h, c)."""
    return state if isinstance(state, tuple) else (state,)


def as_state(parts: Any) -> Any:
    """A tuple of states as cells and layers take it: h, or (h, c)."""
    return tuple(parts) if len(parts) > 1 else parts[0]


@dataclass
class Problem:
    """Input, initial state and the gradients that come from outside, all random."""

    x: Array
    state: tuple[Array, ...]
    dy: Array
    dstate: tuple[Array, ...]

    def swap(self) -> "Problem":
        """The same with x and dy as (B, T, ...)."""
        x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (self.x, self.dy))
        return Problem(x, self.state, dy, self.dstate)


@dataclass
class Result:
    """What one forward and one backward pass give, whoever computed them."""

    y: Array
    state: tuple[Array, ...]
    dx: Array
    dstate: tuple[Array, ...]
    parameters: dict[str, Array]

    def arrays(self) -> dict[str, Array]:
        """Everything, by a name for the messages."""
        named = {"y": self.y, "dx": self.dx}
        for what, parts in (("final state", self.state), ("gradient of state", self.dstate)):
            named |= {f"{what} {part}": a for part, a in zip("hc", parts, strict=False)}
        return named | {f"gradient of {name}": a for name, a in self.parameters.items()}


def problem(layer: Any, T: int, B: int, seed: int = 0) -> Problem:
    """A random problem for a layer, time first."""
    random = np.random.default_rng(seed)
    directions = 1 + layer.bidirectional
    count = layer.num_layers * directions
    P = getattr(layer, "proj_size", 0) or layer.hidden_size
    widths = [P, *[layer.hidden_size] * (len(layer._cell.states) - 1)]

    def normal(*shape: int) -> Array:
        return random.standard_normal(shape).astype(layer.dtype)

    return Problem(
        x=normal(T, B, layer.input_size),
        state=tuple(0.5 * normal(count, B, width) for width in widths),
        dy=normal(T, B, directions * P),
        dstate=tuple(normal(count, B, width) for width in widths),
    )


def run(layer: Any, p: Problem, **arguments: Any) -> Result:
    """One forward and one backward pass of a fastrnn layer."""
    y, state, tape = layer.forward(p.x, as_state(p.state), **arguments)
    gradients = layer.backward(tape, p.dy, as_state(p.dstate))
    return Result(
        y, states(state), gradients.x, states(gradients.state), dict(gradients.parameters)
    )


def expected(cell: str, layer: Any, p: Problem, **arguments: Any) -> Any:
    """What the reference says of a layer's forward pass: y, final states, gates."""
    kind, options = CELLS[cell]
    return reference.layer(kind, layer.state_dict(), p.x, p.state, **arguments, **options)


def assert_close(actual: Array, wanted: Array, tolerance: float, name: str = "") -> None:
    """Every error is at most `tolerance` times the largest value wanted, or times 1.

    Outputs of order 1 are so held to an absolute error; a gradient, which is a sum over
    time and batch, to its own size: an entry near 0 is the difference of larger terms and
    keeps their rounding.
    """
    assert actual.shape == wanted.shape, f"{name}: shape {actual.shape}, not {wanted.shape}"
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    np.testing.assert_allclose(
        actual, wanted, rtol=0, atol=tolerance * scale, equal_nan=False, err_msg=name
    )


def assert_results_close(actual: Result, wanted: Result, tolerance: float) -> None:
    """Outputs, states and all gradients agree, and the same gradients are there."""
    wanted_arrays, actual_arrays = wanted.arrays(), actual.arrays()
    assert list(actual_arrays) == list(wanted_arrays)
    for name, array in wanted_arrays.items():
        assert_close(actual_arrays[name], array, tolerance, name)


def assert_same_bits(actual: Result, wanted: Result) -> None:
    """Outputs, states and all gradients are equal to the last bit."""
    wanted_arrays, actual_arrays = wanted.arrays(), actual.arrays()
    assert list(actual_arrays) == list(wanted_arrays)
    for name, array in wanted_arrays.items():
        np.testing.assert_array_equal(actual_arrays[name], array, err_msg=name, strict=True)
