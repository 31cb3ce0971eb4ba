"""The linear layer, which stands behind the recurrent ones of nearly every stream."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.check import Array
from fastrnn.parameters import Module
from fastrnn.streamable import LayerState, Streamable
from fastrnn.tape import Gradients
from fastrnn_kernels import cpu
from fastrnn_kernels.cpu import LinearStage, Stage, pack_linear


def _sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))  # at most 1: neither tail overflows
    result: Array = np.where(a >= 0, 1, e) / (1 + e)
    return result.astype(a.dtype)


#: Activations: the function, and its derivative in terms of its value.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "relu": (lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(y.dtype)),
}


@dataclass(frozen=True, eq=False)
class LinearTape:
    """One forward pass of a linear layer, as its `backward` needs it."""

    owner: Any = field(repr=False)
    x: Array = field(repr=False)
    y: Array = field(repr=False)
    weight: Array = field(repr=False)


class Linear(Module, Streamable[tuple[()]]):
    """A linear layer with an optional activation, `torch.nn.Linear` and one of its functions.

        y = φ(W x + b)

    in_features, out_features: I and O.
    activation: φ, "tanh", "sigmoid", "relu", or None for none.
    Other arguments as those of `LSTM`; bfloat16 is for recurrent layers only.

    Parameters: weight (O, I), bias (O,), drawn from U(-1/√I, 1/√I).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str | None = None,
        *,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._configure(
            in_features=in_features, out_features=out_features, bias=bias,
            activation=activation, device=device, dtype=dtype,
        )  # fmt: skip
        self._draw(seed)

    def _configure(
        self,
        *,
        in_features: int,
        out_features: int,
        bias: bool,
        activation: str | None,
        device: str,
        dtype: Any,
    ) -> None:
        self.in_features = check.size("in_features", in_features)
        self.out_features = check.size("out_features", out_features)
        self.bias = check.flag("bias", bias)
        if activation is not None:
            check.choice("activation", activation, list(ACTIVATIONS))
        self.activation = activation
        products = check.products_type("dtype", dtype)
        if products not in ("float32", "float64"):
            raise ValueError(f"dtype is {products!r}, a linear layer takes 'float32' or 'float64'")
        self._set_up(device, dtype)
        self._shapes = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            self._shapes["bias"] = (self.out_features,)

    def _checked_kernels(self, device: str) -> ModuleType:
        kernels = super()._checked_kernels(device)
        if kernels is not cpu:
            raise RuntimeError(f"a linear layer runs on the CPU so far, not on {device!r}")
        return kernels

    @property
    def _fan(self) -> int:
        return self.in_features

    def config(self) -> dict[str, Any]:
        """The arguments that make another one of the same kind and size."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation": self.activation,
            "device": self.device,
            "dtype": self.products,
        }

    def __call__(self, x: Any) -> Array:
        """y (..., O) of x (..., I), in the layer's float type; TypeError or ValueError else."""
        return self._apply(self._checked(x), self.parameters)

    def forward(self, x: Any) -> tuple[Array, LinearTape]:
        """y (..., O) of x (..., I), and the tape that `backward` needs."""
        parameters = self.parameters
        x = np.array(self._checked(x), order="C")
        y = self._apply(x, parameters)
        return y, LinearTape(self, x, y.copy(), parameters["weight"])

    def backward(self, tape: LinearTape, dy: Any) -> Gradients[tuple[()]]:
        """Gradients of a loss: of x, and of each parameter by name; there is no state.

        tape: from this layer's `forward`. dy: gradient of y, in y's shape. Raises TypeError
        or ValueError for wrong arguments.
        """
        if not isinstance(tape, LinearTape):
            raise TypeError(
                f"tape is a {type(tape).__name__}, wanted the LinearTape that forward gives"
            )
        if tape.owner is not self:
            raise ValueError(f"tape comes from another layer, {tape.owner!r}")
        da = check.shaped("dy", dy, self.dtype, tape.y.shape, "that of y", self._owner)
        if self.activation is not None:
            da = da * ACTIVATIONS[self.activation][1](tape.y)
        rows = da.reshape(-1, self.out_features)
        parameters = {"weight": rows.T @ tape.x.reshape(-1, self.in_features)}
        if self.bias:
            parameters["bias"] = rows.sum(axis=0)
        return Gradients(da @ tape.weight, (), parameters)

    def _checked(self, x: Any) -> Array:
        given = check.floats("input", x, self.dtype, self._owner)
        if given.ndim < 1 or given.shape[-1] != self.in_features:
            raise ValueError(f"input has shape {given.shape}, wanted (..., {self.in_features})")
        return given

    def _apply(self, x: Array, parameters: Mapping[str, Array]) -> Array:
        a: Array = x @ parameters["weight"].T
        if self.bias:
            a += parameters["bias"]
        if self.activation is not None:
            a = ACTIVATIONS[self.activation][0](a)
        return a

    def _stages(self, batch_size: int, weights: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        version = self._version
        weight, bias = version.values["weight"], version.values.get("bias")
        if weights not in version.packed:  # threads that come first both pack, and get the same
            version.packed[weights] = pack_linear(weight, bias, weights)
        I, O = self.in_features, self.out_features
        stage = LinearStage(self.activation, str(self.dtype), weights, batch_size, I, O)
        return [(stage, version.packed[weights])]

    def _join_layers(self, layers: Iterator[LayerState]) -> tuple[()]:
        return ()

    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        if state is not None and not (isinstance(state, tuple) and not state):
            raise ValueError(f"{name} is {state!r}, a linear layer has none")
        return []
