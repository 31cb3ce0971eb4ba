"""A model one step at a time: states and arrays stay on the GPU, and a step is one graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn_kernels.cuda.data.weights import Weights
from fastrnn_kernels.cuda.launch.arrays import Array, take, wait, xp
from fastrnn_kernels.cuda.launch.blas import product
from fastrnn_kernels.cuda.launch.graph import Graph
from fastrnn_kernels.cuda.launch.launch import Readers, launch
from fastrnn_kernels.cuda.stepwise import forward as ahead
from fastrnn_kernels.cuda.stepwise.linear import activation_kernel
from fastrnn_kernels.cuda.stepwise.path import RecordedForward, Shape


@dataclass(frozen=True, eq=False)
class LinearWeights:
    """A linear layer: NumPy arrays weight (O, I), bias (O,) or None; its activation or None."""

    weight: Any
    bias: Any
    activation: str | None

    @property
    def input_size(self) -> int:
        """I, the width of x."""
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        """O, the width of y."""
        return int(self.weight.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        dtype: np.dtype[Any] = self.weight.dtype
        return dtype


class _CellStep:
    """A layer: y (B, P) of x (B, I)."""

    def __init__(self, weights: Weights, x: Array) -> None:
        B, P, G = x.shape[0], weights.state_size, weights.cell.G
        self._weights, self._x = weights, x
        self.y = xp.empty((B, P), x.dtype)
        self._x_sums = xp.empty((B, G * weights.hidden_size), x.dtype)
        self._recorded = RecordedForward(weights, Shape(B, 1, P, 0, False, False, taping=False))
        self._recorded.h[...] = 0
        self._recorded.rest[...] = 0
        # No step is the last: of rows two steps long each is the first.
        self._lengths = xp.full(B, 2, "int64")
        self._recorded.table.fill(
            {
                ahead.STEPS: 2, ahead.FIRST: 0, ahead.LENGTHS: self._lengths,
                ahead.X_SUMS: self._x_sums, ahead.Y_OUT: self.y,
            }
        )  # fmt: skip

    @property
    def state(self) -> tuple[Array, Array]:
        """h (B, P), and the other states (states but h, B, H)."""
        return self._recorded.h, self._recorded.rest

    def calls(self) -> None:
        """The launches and products of a step."""
        weights = self._weights
        compute = weights.compute
        product(self._x, weights.matrices.x, self._x_sums, transposed=True, compute=compute)
        self._recorded.step(0)


class _LinearStep:
    """A linear layer: y (B, O) of x (B, I)."""

    def __init__(self, weights: LinearWeights, x: Array) -> None:
        self._x, self._weight = x, take(weights.weight, copy=True)
        self.y = xp.empty((x.shape[0], weights.output_size), x.dtype)
        bias = np.zeros(weights.output_size, x.dtype) if weights.bias is None else weights.bias
        self._bias = take(bias, copy=True)
        self._kernel = activation_kernel(weights.activation, np.dtype(x.dtype))

    def calls(self) -> None:
        """The launch and product of a step."""
        product(self._x, self._weight, self.y, transposed=True)
        many, width = self.y.size, self.y.shape[1]
        launch(self._kernel, many, self.y, self._bias, many, width)


class Steps:
    """The layers one after the other, x (B, I) and y (B, O) their first and last arrays."""

    def __init__(self, layers: Sequence[Weights | LinearWeights], B: int) -> None:
        self.x = x = xp.zeros((B, layers[0].input_size), layers[0].dtype)
        self._steps: list[_CellStep | _LinearStep] = []
        for layer in layers:
            made = _CellStep(layer, x) if isinstance(layer, Weights) else _LinearStep(layer, x)
            self._steps.append(made)
            x = made.y
        self.y = x
        self.graph = Graph(self._calls, f"a step of {len(layers)} layers of B={B} rows")
        self._readers = Readers(self)
        wait()  # another stream may be the next to step

    @property
    def states(self) -> list[tuple[Array, Array]]:
        """Of each recurrent layer its h (B, P) and other states (states but h, B, H)."""
        return [step.state for step in self._steps if isinstance(step, _CellStep)]

    def note(self) -> None:
        """The caller's stream was given work on these arrays, which are kept until it is done."""
        self._readers.note()

    def _calls(self) -> None:
        for step in self._steps:
            step.calls()
