"""Layers and cells of Keras of what a program has defined (`fastrnn.cell`)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

import keras
from keras import ops

from fastrnn.keras.layers import Loop
from fastrnn.keras.run import KNOWN, ByKernels, step
from fastrnn.keras.weights import Layout
from fastrnn.models.defined import Defined, DefinedCell
from fastrnn.models.recurrent import CLASSES
from fastrnn_kernels.equations.define import Derived
from fastrnn_kernels.equations.evaluate import Equations

#: What Keras's own cells have of their dropout: it shows that in them alone.
_Dropout: Any = next(one for one in keras.layers.GRUCell.__mro__ if one.__name__.startswith("Drop"))
_PARTS = ("kernel", "recurrent", "bias", "per_unit")
_HOW = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}
_INITIALIZERS = {
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
    "per_unit_initializer": "glorot_uniform",
}
#: The arguments of a cell, beside `units` and those of every layer, and their defaults.
_OPTIONS: dict[str, Any] = {
    "use_bias": True,
    **{f"{part}_{how}": None for how in _HOW for part in _PARTS},
    **_INITIALIZERS,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "seed": None,
}


def _where_at_most(a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    like = b if isinstance(a, float) else a
    numbers = (
        ops.full_like(like, one) if isinstance(one, float) else one for one in (then, otherwise)
    )
    return ops.where(a <= b, *numbers)


_NAMES = "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "erf", "sigmoid", "tanh", "relu"
_FUNCTIONS = {name: getattr(ops, name) for name in (*_NAMES, "softplus", "absolute")} | {
    "where_at_most": _where_at_most
}

_made: dict[type[Defined], type[Any]] = {}


def layer_class(layer: type[Defined]) -> type[Any]:
    """The class of Keras's layers, or cells, for the layers, or single steps, of a defined cell."""
    found = _made.get(layer)
    if found is None:
        derived = layer._derived
        contents: dict[str, Any] = {
            "__module__": layer.__module__,
            "__qualname__": f"{layer.__qualname__}.keras",
            "__doc__": f"{layer.__doc__}\nThis is the layer of Keras.\n",
            "derived": derived,
        }
        if issubclass(layer, DefinedCell):
            contents["equations"] = Equations(derived.traced, _FUNCTIONS)
            # JAX's recipes and `Layout` know one bias, or two where the parts of a sum are apart.
            contents["layout"] = Layout(two_biases=derived.cell.A > 0, defined=True)
            made = type(layer.kind, (DefinedKerasCell,), contents)
            KNOWN.add(made)
        else:
            contents["cell_class"] = layer_class(layer.Cell)  # type: ignore[attr-defined]
            made = type(layer.kind, (DefinedKerasLayer,), contents)
        found = _made[layer] = keras.saving.register_keras_serializable("fastrnn", layer.kind)(made)
    return found


class _Configured:
    """What both have: files tell which equations they were saved with."""

    derived: ClassVar[Derived]

    def _told(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {**config, "equations": self.derived.digest}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer of a configuration; ValueError for that of a cell with other equations."""
        rest = dict(config)
        told = rest.pop("equations", cls.derived.digest)
        if told != cls.derived.digest:
            raise ValueError(
                f"its {cls.__name__} had other equations (digest {told!r}) than the one that is "
                f"defined now ({cls.derived.digest!r}): define it as it was when it was saved"
            )
        return cls(**rest)


class DefinedKerasCell(_Configured, ByKernels, _Dropout, keras.layers.Layer):  # type: ignore[misc]
    """One step of a cell that a program has defined, as a cell of Keras."""

    equations: ClassVar[Equations]
    layout: ClassVar[Layout]
    implementation = 2

    def __init__(self, units: int, **options: Any) -> None:
        own = {name: options.pop(name, usual) for name, usual in _OPTIONS.items()}
        super().__init__(**options)
        if isinstance(units, bool) or not isinstance(units, int) or units <= 0:
            raise ValueError(f"units is {units!r}, wanted a positive integer")
        self.units = self.output_size = units
        states = self.derived.cell.N
        self.state_size = units if states == 1 else [units] * states
        self.use_bias = own["use_bias"]
        self.dropout = min(1.0, max(0.0, own["dropout"]))
        self.recurrent_dropout = min(1.0, max(0.0, own["recurrent_dropout"]))
        self.seed = own["seed"]
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        for how, known in _HOW.items():
            for part in _PARTS:
                name = f"{part}_{how}"
                setattr(self, name, known.get(own[name]))

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        cell, H = self.derived.cell, self.units
        columns, columns_of_h = cell.G * H, cell.GH * H
        self.kernel = self._weight("kernel", (input_shape[-1], columns), "kernel")
        if columns_of_h:
            self.recurrent_kernel = self._weight("recurrent_kernel", (H, columns_of_h), "recurrent")
        else:
            self.recurrent_kernel = ops.zeros((H, 0), self.variable_dtype)
        shape = (2, columns) if self.layout.two_biases else (columns,)
        self.bias = self._weight("bias", shape, "bias") if self.use_bias else None
        names = self.derived.traced.per_unit
        self._per_unit = [self._weight(name, (H,), "per_unit") for name in names]
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], part: str) -> Any:
        how = {one: getattr(self, f"{part}_{one}") for one in _HOW}
        return self.add_weight(shape=shape, name=name, **how)

    @property
    def units_parameters(self) -> Any:
        """The parameters that each unit has of its own (Q, H), None if there are none."""
        return ops.stack([*map(ops.convert_to_tensor, self._per_unit)]) if self._per_unit else None

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros (B, H) for each state."""
        shape = batch_size, self.units
        return [ops.zeros(shape, self.compute_dtype) for _ in self.derived.cell.states]

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step: x (B, I), states (B, H) each -> h, the new states."""
        found = step(self, inputs, states, training)
        return self._by_operations(inputs, states, training) if found is None else found

    def _by_operations(self, x: Any, states: Any, training: bool) -> Any:
        """By Keras's own operations."""
        nested = isinstance(states, list | tuple)
        old = [ops.cast(one, self.compute_dtype) for one in (states if nested else [states])]
        if training and self.dropout:
            x = x * self.get_dropout_mask(x)
        h_mask = self.get_recurrent_dropout_mask(old[0]) if training else None
        equations, traced = self.equations, self.derived.traced
        x_bias, h_bias = self.bias, None
        if x_bias is not None and self.layout.two_biases:
            x_bias, h_bias = x_bias[0], x_bias[1]
        from_x = _product(x, self.kernel, x_bias, traced.gates, traced.gates)

        def product(value: Any, gates: tuple[str, ...]) -> dict[str, Any]:
            value = value if h_mask is None else value * h_mask
            return _product(value, self.recurrent_kernel, h_bias, equations.recurrent, gates)

        new = equations.step(
            from_x, product(old[0], equations.early), lambda value: product(value, traced.late),
            old, self._per_unit,
        )  # fmt: skip
        new = [ops.zeros_like(like) + one for one, like in zip(new, old, strict=True)]
        return new[0], new if nested else new[0]

    def get_config(self) -> dict[str, Any]:
        """What makes one like it."""
        config: dict[str, Any] = {"units": self.units}
        for name in _OPTIONS:
            value = getattr(self, name)
            how = _HOW.get(name.rpartition("_")[2])
            config[name] = value if how is None else how.serialize(value)
        return self._told({**super().get_config(), **config})


def _product(
    value: Any, matrix: Any, bias: Any, every: tuple[str, ...], gates: tuple[str, ...]
) -> dict[str, Any]:
    """The parts of some gates' sums, of weights that have columns for every gate."""
    if not gates:
        return {}
    H = matrix.shape[-1] // len(every)
    places = [slice(n * H, (n + 1) * H) for n in map(every.index, gates)]
    if len(gates) < len(every):  # Those of a late value, and the others.
        matrix = ops.concatenate([matrix[:, place] for place in places], -1)
        places = [slice(n * H, (n + 1) * H) for n in range(len(gates))]
        assert bias is None
    found = ops.matmul(value, matrix)
    if bias is not None:
        found = found + bias[: found.shape[-1]]
    return {gate: found[:, place] for gate, place in zip(gates, places, strict=True)}


class DefinedKerasLayer(_Configured, Loop, keras.layers.RNN):  # type: ignore[misc]
    """Layers of a cell that a program has defined, as a layer of Keras."""

    cell_class: ClassVar[type[DefinedKerasCell]]

    def __init__(self, units: int, **options: Any) -> None:
        own = {name: options.pop(name) for name in _OPTIONS if name in options}
        common = {name: options[name] for name in ("dtype", "trainable") if name in options}
        super().__init__(self.cell_class(units, **own, **common), **options)
        self.input_spec = keras.InputSpec(ndim=3)

    @cached_property
    def units(self) -> int:
        """H."""
        return self.cell.units  # type: ignore[no-any-return]

    def get_config(self) -> dict[str, Any]:
        """What makes one like it."""
        config, own = super().get_config(), self.cell.get_config()
        del config["cell"]
        return self._told({**config, **{name: own[name] for name in ("units", *_OPTIONS)}})


# Files name classes that are registered: those of cells that were defined before, too.
for _layer in [*CLASSES.values()]:
    if issubclass(_layer, Defined):
        layer_class(_layer)
