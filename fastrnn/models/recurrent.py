"""What layers and cells share: a cell of the kernels, and the choice of where a call runs."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array
from fastrnn.device import gpu_compute
from fastrnn.models import auto
from fastrnn.models.module import Module, Version
from fastrnn_kernels.cells import registry
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.gradients import Gradients as PassGradients
from fastrnn_kernels.tape import Tape as PassTape
from fastrnn_kernels.weights import Weights

#: The classes of layers and of single steps by kind: all that have come to be (`classes.py`).
CLASSES: dict[str, type["Recurrent"]] = {}


class Recurrent(Module):
    """A module of recurrent cells, those that the registry has under its kind."""

    input_size: int
    hidden_size: int

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" not in vars(cls):
            return
        known = CLASSES.setdefault(cls.kind, cls)
        names = [f"{one.__module__}.{one.__qualname__}" for one in (known, cls)]
        if names[0] != names[1]:
            raise ValueError(f"kind of {names[1]} is {cls.kind!r}, which {names[0]} has already")
        CLASSES[cls.kind] = cls  # of a class that is written anew, the last

    @classmethod
    def _options(cls) -> dict[str, tuple[Any, ...]]:
        """What tells the cells of its kind apart: the values of each option, the usual first."""
        return registry.options_of(cls.kind.removesuffix("Cell"))

    @classmethod
    def _arguments(cls) -> Mapping[str, Any]:
        """The arguments that make one, and their defaults, the seed left out."""
        usual = {name: values[0] for name, values in cls._options().items()}
        return {**super()._arguments(), **usual}

    def _take_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Check and fix the options; what else is in the configuration."""
        options = self._options()
        for name, values in options.items():
            if name not in config:
                raise TypeError(f"{name} of {self._owner} is missing")
            setattr(self, name, check.option(name, config[name], values))
        return {name: value for name, value in config.items() if name not in options}

    def _with_usual(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options that were given, and the usual values of others."""
        known = self._options()
        for name in options:
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no argument {name!r}")
        return {name: options.get(name, values[0]) for name, values in known.items()}

    @cached_property
    def _cell(self) -> Cell:
        """The kernels' cell."""
        options = {name: getattr(self, name) for name in self._options()}
        return registry.cell_of(self.kind.removesuffix("Cell"), **options)

    def __getstate__(self) -> dict[str, Any]:
        """The state without the cell, which another process has by its registry."""
        state = super().__getstate__()
        state.pop("_cell", None)
        return state

    @property
    def _fan(self) -> int:
        return self.hidden_size

    @abstractmethod
    def _checked_input(self, x: Any) -> tuple[Array, int, int, bool]:
        """The input as it is laid out, T, B, and whether it has an axis of B."""

    def _placed(
        self, T: int, B: int, taping: bool, on_gpu: bool, rather_cpu: bool = False
    ) -> tuple[Kernels, tuple[Weights, ...]]:
        """The kernels that run a call, and their weights.

        on_gpu: whether an array of the call lies on the GPU. rather_cpu: "auto" is the CPU, if not.
        """
        version = self._version
        if (rather_cpu or version.few >= T * B) and (version.device == "cpu" or not on_gpu):
            return version.kernels, version.weights
        kernels = version.kernels
        if version.device == "auto":
            kernels = auto.kernels(self, version.weights, T, B, taping, on_gpu)
        return kernels, self._weights_for(version, kernels)

    def _weights_for(self, version: Version, kernels: Any) -> tuple[Weights, ...]:
        """A version's weights for kernels, in the type that those compute in."""
        compute = self.compute if kernels.ON_HOST else gpu_compute(self.compute)
        if kernels is version.kernels and compute == self.compute:
            return version.weights
        # No lock: two threads that come first both make them, and get the same.
        key = kernels, compute
        if key not in version.others:
            version.others[key] = self._make_weights(kernels, version.values, compute)
        return version.others[key]

    def _units(self, values: Mapping[str, Array], suffix: str = "") -> Array | None:
        """The parameters per unit (Q, H) of one direction of a layer, None if there are none."""
        found = [values[f"{name}{suffix}"] for name in self._cell.per_unit]
        return np.stack(found) if found else None

    def _by_name(
        self, kernels: Kernels, found: PassGradients, suffix: str, host: bool
    ) -> dict[str, Array]:
        """The gradients of the parameters of one direction of a layer, by name."""
        every = {
            "weight_ih": found.w_ih, "weight_hh": found.w_hh, "bias_ih": found.b_ih,
            "bias_hh": found.b_hh, "weight_hr": found.w_hr,
        }  # fmt: skip
        if found.units is not None:
            every |= dict(zip(self._cell.per_unit, found.units, strict=True))
        named = {f"{name}{suffix}": value for name, value in every.items()}
        shapes = self._shapes
        return {name: kernels.give(named[name], host) for name in named if name in shapes}

    def _gates(self, one: PassTape[Any], xp: Any) -> dict[str, Array]:
        """The values (T, B, H) of the gates of one pass, by name."""
        T, B, K, padded = one.saved.shape
        running = one.rows.running
        gates = {}
        for name in self._cell.gates:
            values = xp.zeros((T * B, self.hidden_size), self.dtype)
            position = self._cell.saved.index(name)
            whole = one.saved.reshape(T * B, K, padded)[running, position]
            values[running] = whole[:, : self.hidden_size]
            gates[name] = values.reshape(T, B, self.hidden_size)
        return gates
