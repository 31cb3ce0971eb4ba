"""What layers and cells share: a cell of the kernels, and the choice of where a call runs."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, Shape
from fastrnn.device import gpu_compute, kernels_of
from fastrnn.models import auto, variants
from fastrnn.models.module import Module, Version
from fastrnn.models.tape import Tape
from fastrnn_kernels.cells import registry
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.gradients import Gradients as PassGradients
from fastrnn_kernels.tape import Tape as PassTape
from fastrnn_kernels.weights import Weights

if TYPE_CHECKING:
    from fastrnn_kernels.equations.define import Derived

#: The classes of layers and of single steps by kind: all that have come to be (`classes.py`).
CLASSES: dict[str, type["Recurrent"]] = {}


class Recurrent(Module):
    """A module of recurrent cells, those that the registry has under its kind."""

    input_size: int
    hidden_size: int
    initial_state: str
    blocks: int
    norm: str | None

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

    @classmethod
    def _choices(cls) -> dict[str, Any]:
        """Arguments that a configuration leaves out where they are what they usually are."""
        of_kind = variants.ARGUMENTS.get(cls.kind.removesuffix("Cell"), {})
        return {**of_kind, "initial_state": "zeros", "blocks": 1, "norm": None}

    def config(self) -> dict[str, Any]:
        """The arguments that make another one of the same kind and size."""
        usual = self._choices()
        found = super().config()
        return {n: value for n, value in found.items() if n not in usual or value != usual[n]}

    @property
    def _chosen(self) -> dict[str, Any]:
        """What is chosen that is not usual."""
        return {n: value for n, value in self.config().items() if n in self._choices()}

    def _take_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Check and fix the options and choices; what else is in the configuration."""
        options, choices = self._options(), self._choices()
        if "nonlinearity" in options:
            config = variants.canonical(config)
        for name, values in options.items():
            if name not in config:
                raise TypeError(f"{name} of {self._owner} is missing")
            setattr(self, name, check.option(name, config[name], values))
        for name, usual in choices.items():
            value = config.get(name, usual)
            setattr(self, name, value if value is usual else self._checked_choice(name, value))
        known = {*options, *choices}
        return {name: value for name, value in config.items() if name not in known}

    @staticmethod
    def _checked_choice(name: str, value: Any) -> Any:
        if name == "initial_state":
            return check.option(name, value, ("zeros", "learned"))
        if name == "norm":
            return value if value is None else check.option(name, value, (None, "layer", "rms"))
        if name == "blocks":
            return check.size(name, value)
        if name == "peepholes":
            return check.flag(name, value)
        return variants.checked(name, value)

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
        kind = self.kind.removesuffix("Cell")
        if not variants.is_usual(kind, self):
            return variants.cell_of(kind, self)
        options = {name: getattr(self, name) for name in self._options()}
        return registry.cell_of(kind, **options)

    @property
    def _equations(self) -> "Derived":
        """Those of the cell, for what is derived of them."""
        kind = self.kind.removesuffix("Cell")
        if kind not in variants.ARGUMENTS:
            raise ValueError(
                f"{self._owner} has a cell without equations: zoneout, and dropout of the "
                "candidate, are for RNN, LSTM, GRU and cells of fastrnn.cell"
            )
        return variants.equations_of(kind, self)

    def __getstate__(self) -> dict[str, Any]:
        """The state without the cells, which another process has by its registry."""
        state = super().__getstate__()
        for name in ("_cell", "_expected_cell", "_training_cell"):
            state.pop(name, None)
        return state

    @property
    def _fan(self) -> int:
        return self.hidden_size

    @property
    def state_size(self) -> int:
        """P: the width of h."""
        return self.hidden_size

    @abstractmethod
    def _checked_input(self, x: Any) -> tuple[Array, int, int, bool]:
        """The input as it is laid out, T, B, and whether it has an axis of B."""

    def _placed(
        self,
        T: int,
        B: int,
        taping: bool,
        on_gpu: bool,
        rather_cpu: bool = False,
        version: Version | None = None,
    ) -> tuple[Kernels, tuple[Weights, ...], Version]:
        """The kernels that run a call, their weights, and the version that these are of.

        on_gpu: whether an array of the call lies on the GPU. rather_cpu: "auto" is the CPU, if not.
        version: of the parameters, if not the layer's own.
        """
        version = version or self._version
        if (rather_cpu or version.few >= T * B) and (version.device == "cpu" or not on_gpu):
            return version.kernels, version.weights, version
        kernels = version.kernels
        if version.device == "auto":
            kernels = auto.kernels(self, version.weights, T, B, taping, on_gpu)
        return kernels, self._weights_for(version, kernels), version

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

    @property
    def _block(self) -> int:
        """The columns of h that a unit multiplies: all of them, or those of its own block.

        Raises ValueError for blocks of a layer that cannot have them.
        """
        if self.blocks == 1:
            return self.state_size
        told, cell = f"blocks is {self.blocks}", self._cell
        if self.hidden_size % self.blocks:
            raise ValueError(
                f"{told}, wanted a divisor of hidden_size = {self.hidden_size}, as blocks are of "
                "the same size"
            )
        if not cell.GH:
            raise ValueError(f"{told}, wanted 1: no gate of {self._owner} multiplies h")
        if cell.late:
            raise ValueError(
                f"{told}, wanted 1: {self._owner} multiplies another value in place of h in "
                f"{', '.join(cell.late)}, which blocks are not made for"
            )
        if self.state_size != self.hidden_size:
            raise ValueError(f"{told}, wanted 1 with proj_size = {self.state_size}")
        return self.hidden_size // self.blocks

    def _checked_kernels(self, device: str) -> Kernels:
        kernels = super()._checked_kernels(device)
        if self.norm is not None and not kernels.ON_HOST:
            raise ValueError(f"norm is {self.norm!r}, which is for the CPU so far, not {device!r}")
        return kernels

    def _norm_shapes(self, suffix: str = "") -> dict[str, Shape]:
        """The shapes of the gains of one direction of a layer.

        Raises ValueError for a norm of a layer that cannot have one.
        """
        if self.norm is None:
            return {}
        told, cell, H = f"norm is {self.norm!r}", self._cell, self.hidden_size
        if self.compute == "bfloat16":
            raise ValueError(f"{told}, wanted None with dtype 'bfloat16': take 'float32'")
        if cell.late:
            raise ValueError(
                f"{told}, wanted None: {self._owner} multiplies another value in place of h in "
                f"{', '.join(cell.late)}, which norms are not made for"
            )
        if self.state_size != H:
            raise ValueError(f"{told}, wanted None with proj_size = {self.state_size}")
        found: dict[str, Shape] = {f"norm_ih{suffix}": (cell.G * H,)}
        if cell.GH:
            found[f"norm_hh{suffix}"] = (cell.GH * H,)
        return found

    def _norm_of(self, values: Mapping[str, Array], suffix: str = "") -> dict[str, Any]:
        """What the kernels' weights have of it."""
        if self.norm is None:
            return {}
        of_h = values.get(f"norm_hh{suffix}", np.empty(0, self.dtype))
        return {"norm": self.norm, "norm_ih": values[f"norm_ih{suffix}"], "norm_hh": of_h}

    @property
    def _learned(self) -> bool:
        """Whether states begin from parameters."""
        return self.initial_state == "learned"

    def _start_shapes(self, suffix: str = "") -> dict[str, Shape]:
        """The shapes of the parameters that the states of one direction of a layer begin from."""
        if not self._learned:
            return {}
        h, *others = (f"initial_{state}{suffix}" for state in self._cell.states)
        return {h: (self.state_size,), **dict.fromkeys(others, (self.hidden_size,))}

    def _drawn(self, name: str, shape: Shape, generator: np.random.Generator) -> Array:
        if name.startswith("initial_"):
            return np.zeros(shape, self.dtype)  # as states begin that are not learned
        if name.startswith("norm_"):
            return np.ones(shape, self.dtype)
        return super()._drawn(name, shape, generator)

    def _begun(
        self, kernels: Kernels, values: Mapping[str, Array], suffixes: Sequence[str], B: int
    ) -> tuple[Array, ...]:
        """What states begin from, (len(suffixes), B, width) each."""
        found = []
        for state in self._cell.states:
            starts = np.stack([values[f"initial_{state}{suffix}"] for suffix in suffixes])
            shape = (len(suffixes), B, starts.shape[1])
            found.append(kernels.take(np.array(np.broadcast_to(starts[:, None], shape))))
        return tuple(found)

    def _start_gradients(
        self, d_start: Sequence[Array], suffixes: Sequence[str], tape: Tape
    ) -> dict[str, Array]:
        """Gradients of what states begin from, by name, of those of states, (suffixes, B, width).

        All rows begin from the same: theirs is the sum of the rows'; 0 if a state was given.
        """
        found = {}
        kernels = kernels_of(tape.device)
        for state, d in zip(self._cell.states, d_start, strict=True):
            sums = d.sum(axis=1) if tape.learned else kernels.xp.zeros_like(d[:, 0])
            sums = kernels.give(sums, tape.host)
            for k, suffix in enumerate(suffixes):
                found[f"initial_{state}{suffix}"] = sums[k]
        return found

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
            "norm_ih": found.norm_ih, "norm_hh": found.norm_hh,
        }  # fmt: skip
        if found.units is not None:  # behind those of the cell may be rates
            every |= dict(zip(self._cell.per_unit, found.units, strict=False))
        named = {f"{name}{suffix}": value for name, value in every.items()}
        shapes = self._shapes
        return {name: kernels.give(named[name], host) for name in named if name in shapes}

    def _gates(self, one: PassTape[Any], xp: Any) -> dict[str, Array]:
        """The values (T, B, H) of the gates of one pass, by name."""
        gates = {}
        kept = one.weights.cell.saved
        for name in self._cell.gates:
            if name in kept:  # else it is as where a gate is linear
                gates[name] = self._saved(one, name, xp)
        return gates

    def _saved(self, one: PassTape[Any], name: str, xp: Any) -> Array:
        """A value (T, B, H) that a tape keeps, 0 where a sequence has ended."""
        T, B, K, padded = one.saved.shape
        H, running = self.hidden_size, one.rows.running
        values: Array = xp.zeros((T * B, H), self.dtype)
        whole = one.saved.reshape(T * B, K, padded)[running, one.weights.cell.saved.index(name)]
        values[running] = whole[:, :H]
        return values.reshape(T, B, H)
