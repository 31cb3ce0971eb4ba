"""The linear layer, which stands behind the recurrent ones of nearly every stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.models.module import Module
from fastrnn.models.streamable import Streamable
from fastrnn.models.tape import Gradients, check_owner
from fastrnn.streams.source import LayerState
from fastrnn_kernels.cpu.device import LinearStage, Stage, pack_linear
from fastrnn_kernels.cpu.isa.host import current


def _sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))  # at most 1: neither tail overflows
    result: Array = np.where(a >= 0, 1, e) / (1 + e)
    return result.astype(a.dtype)


#: Activations of arrays: the function, and its derivative in terms of its value. Their names are
#: ONNX's too, and Keras's; the kernels' forms stand in `fastrnn_kernels/cells/activations.py`.
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
    on_gpu: bool = False  # where its arrays are
    host: bool = True  # whether the caller's were NumPy's


class Linear(Module, Streamable[tuple[()]]):
    """A linear layer with an optional activation, `torch.nn.Linear` and one of its functions.

        y = φ(W x + b)

    in_features, out_features: I and O.
    activation: φ, "tanh", "sigmoid", "relu", or None for none.
    Other arguments as those of `LSTM`; bfloat16 is for recurrent layers only.

    Parameters: weight (O, I), bias (O,), drawn from U(-1/√I, 1/√I).
    """

    kind = "Linear"

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
        compute = check.compute_type("dtype", dtype)
        if compute not in ("float32", "float64"):
            raise ValueError(f"dtype is {compute!r}, a linear layer takes 'float32' or 'float64'")
        self._set_up(device, dtype)
        self._shapes = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            self._shapes["bias"] = (self.out_features,)

    @property
    def _fan(self) -> int:
        return self.in_features

    def __call__(self, x: Any) -> Array:
        """y (..., O) of x (..., I), in the layer's float type; TypeError or ValueError else."""
        given = self._checked(x)
        y = self._apply(self._here(given), *self._arrays())
        return self._back(y, isinstance(given, np.ndarray))

    def forward(self, x: Any) -> tuple[Array, LinearTape]:
        """y (..., O) of x (..., I), and the tape that `backward` needs."""
        weight, bias = self._arrays()
        given = self._checked(x)
        host = isinstance(given, np.ndarray)
        x = self._here(given, copy=True)
        y = self._apply(x, weight, bias)
        return self._back(y, host), LinearTape(
            self, x, y.copy(), weight, not self._kernels.ON_HOST, host
        )

    def backward(self, tape: LinearTape, dy: Any) -> Gradients[tuple[()]]:
        """Gradients of a loss: of x, and of each parameter by name; there is no state.

        tape: from this layer's `forward`. dy: gradient of y, in y's shape. Raises TypeError
        or ValueError for wrong arguments.
        """
        check_owner(tape, LinearTape, self, "another layer, {!r}")
        if tape.on_gpu == self._kernels.ON_HOST:
            raise ValueError(f"tape was made before this layer moved to {self.device!r}")
        da = check.shaped("dy", dy, self.dtype, tape.y.shape, "that of y", self._owner)
        self._check_place("dy", da)
        da = self._here(da)
        if self.activation is not None:
            da = da * ACTIVATIONS[self.activation][1](tape.y)
        rows = da.reshape(-1, self.out_features)
        parameters = {"weight": rows.T @ tape.x.reshape(-1, self.in_features)}
        if self.bias:
            parameters["bias"] = rows.sum(axis=0)
        given = {name: self._back(value, tape.host) for name, value in parameters.items()}
        return Gradients(self._back(da @ tape.weight, tape.host), (), given)

    def tape_bytes(self, T: int, B: int) -> int:
        """Bytes that the tape of T steps of B sequences keeps: x and y."""
        T, B = check.size("T", T, least=0), check.size("B", B, least=0)
        return T * B * (self.in_features + self.out_features) * self.dtype.itemsize

    def _checked(self, x: Any) -> Array:
        given = check.floats("input", x, self.dtype, self._owner)
        if given.ndim < 1 or given.shape[-1] != self.in_features:
            raise ValueError(f"input has shape {given.shape}, wanted (..., {self.in_features})")
        self._check_place("input", given)
        return given

    def _check_place(self, name: str, array: Array) -> None:
        if self._kernels.ON_HOST and not isinstance(array, np.ndarray):
            raise TypeError(f"{name} lies on a GPU, and {self._owner} runs on the CPU: copy it")

    def _here(self, array: Array, copy: bool = False) -> Array:
        """An array on the layer's device."""
        if not self._kernels.ON_HOST:
            moved: Array = self._kernels.take(array, copy=copy)
            return moved
        return np.array(array, order="C") if copy else array

    def _back(self, array: Array, host: bool) -> Array:
        """A result where the caller's arrays are."""
        given: Array = array if self._kernels.ON_HOST else self._kernels.give(array, host)
        return given

    def _arrays(self) -> tuple[Array, Array | None]:
        """Weight and bias on the layer's device."""
        version = self._version
        weight, bias = version.values["weight"], version.values.get("bias")
        if self._kernels.ON_HOST:
            return weight, bias
        if "gpu" not in version.packed:  # threads that come first both copy, and get the same
            moved = self._here(weight), None if bias is None else self._here(bias)
            self._kernels.wait()  # another stream may be the next to read them
            version.packed["gpu"] = moved
        found: tuple[Array, Array | None] = version.packed["gpu"]
        return found

    def _apply(self, x: Array, weight: Array, bias: Array | None) -> Array:
        a: Array = x @ weight.T
        if bias is not None:
            a += bias
        if self.activation is not None:
            a = ACTIVATIONS[self.activation][0](a)
        return a

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        version = self._version
        weight, bias = version.values["weight"], version.values.get("bias")
        key = current(), storage
        if key not in version.packed:  # threads that come first both pack, and get the same
            version.packed[key] = pack_linear(weight, bias, storage)
        I, O = self.in_features, self.out_features
        stage = LinearStage(self.activation, str(self.dtype), storage, batch_size, I, O)
        return [(stage, version.packed[key])]

    def _layers(self) -> list[Any]:
        from fastrnn_kernels.cuda.stream import LinearWeights

        values = self.parameters
        return [LinearWeights(values["weight"], values.get("bias"), self.activation)]

    def _join_layers(self, layers: Iterator[LayerState]) -> tuple[()]:
        return ()

    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        if state is not None and not (isinstance(state, tuple) and not state):
            raise ValueError(f"{name} is {state!r}, a linear layer has none")
        return []
