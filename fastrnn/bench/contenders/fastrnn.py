"""fastrnn itself, as its users call it: NumPy arrays into cells and layers."""

from __future__ import annotations

from typing import Any

import fastrnn
from fastrnn.bench.cases import Case
from fastrnn.bench.contender import Program
from fastrnn.bench.data import Array, Sample, answer, weights
from fastrnn.models.classes import layer_of, step_of

#: How a stream's weights are stored, where that is not in full.
STORAGE = {"bfloat16": "bf16", "int8": "int8"}


def _state(case: Case, arrays: tuple[Array, ...]) -> Any:
    parts = arrays if case.stepwise else tuple(array[None] for array in arrays)
    return parts if len(parts) > 1 else parts[0]


def _arrays(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


class Step:
    """One step of a stream of a cell, which keeps its state itself."""

    def __init__(self, case: Case, device: str) -> None:
        self.case = case
        _, _, I, H = case.shape
        self.cell = step_of(case.cell, I, H, device=device, dtype=case.arrays)
        self.cell.load_state_dict(weights(case))

    def load(self, sample: Sample) -> Any:
        """A stream, one x (B, I), or (I,) of one row, and the state."""
        B = self.case.shape.B
        stream = self.cell.stream(B, weights=STORAGE.get(self.case.dtype))
        stream.warmup()  # what is measured is the step of these sizes
        loaded = stream, sample.x[0] if B == 1 else sample.x, _state(self.case, sample.state)
        self.rewind(loaded)
        return loaded

    def rewind(self, loaded: Any) -> None:
        """Go back to the state that belongs to the input."""
        stream, _, state = loaded
        stream.state = state

    def run(self, loaded: Any) -> Any:
        """One step."""
        loaded[0].step(loaded[1])
        return loaded[0]

    def read(self, result: Any) -> dict[str, Array]:
        """The state's arrays."""
        return answer(None, _arrays(result.state))


class Sequence:
    """A layer over whole sequences."""

    def __init__(self, case: Case, device: str) -> None:
        self.case = case
        _, _, I, H = case.shape
        self.layer = layer_of(case.cell, I, H, device=device, dtype=case.dtype)
        self.layer.load_state_dict({f"{n}_l0": a for n, a in weights(case).items()})

    def load(self, sample: Sample) -> Any:
        """The sequences x (T, B, I), the state, and the lengths."""
        return sample.x, _state(self.case, sample.state), sample.lengths

    def run(self, loaded: Any) -> Any:
        """One inference."""
        return self.layer(*loaded)

    def release(self) -> None:
        """Give back what is kept between calls."""
        fastrnn.release_memory()

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names, without the axis of layers."""
        y, state = result
        return answer(y, [part[0] for part in _arrays(state)])


class Training(Sequence):
    """Forward and backward: gradients of x, of the initial state, of all parameters."""

    def load(self, sample: Sample) -> Any:
        """What `Sequence` takes, and the gradients that arrive."""
        return *super().load(sample), sample.dy, _state(self.case, sample.dstate)

    def run(self, loaded: Any) -> Any:
        """One forward and one backward pass."""
        x, state, lengths, dy, dstate = loaded
        y, state_n, tape = self.layer.forward(x, state, lengths)
        return y, state_n, self.layer.backward(tape, dy, dstate)

    def read(self, result: Any) -> dict[str, Array]:
        """The arrays by their names."""
        y, state, grads = result
        return answer(
            y,
            [part[0] for part in _arrays(state)],
            grads.x,
            [part[0] for part in _arrays(grads.state)],
            {name.removesuffix("_l0"): value for name, value in grads.parameters.items()},
        )


def build(case: Case, threads: int, device: str) -> Program:
    """The case as a fastrnn cell or layer."""
    fastrnn.set_num_threads(threads)
    if case.stepwise:
        return Step(case, device)
    return Training(case, device) if case.pass_ == "train" else Sequence(case, device)
