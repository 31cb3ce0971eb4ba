"""Named parameters of a module: drawn, read, changed, copied, kept."""

import math
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, Shape
from fastrnn.device import CPU_COMPUTE, GPU_COMPUTE, few_rows, kernels_for
from fastrnn.files.description import KEY, describe
from fastrnn.files.paths import path_of
from fastrnn.files.safetensors import write
from fastrnn_kernels import handlers
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.forks import forks
from fastrnn_kernels.weights import Weights


@dataclass(frozen=True, eq=False)
class Version:
    """The parameters between two changes or moves, and the kernels' weights made from them.

    A pass looks at it once, as another thread may put a new one in its place.
    """

    device: str  # as the user named it
    kernels: Kernels  # of that device, or of the CPU for "auto"
    values: Mapping[str, Array]
    weights: tuple[Weights, ...] = ()
    packed: dict[Any, Any] = field(default_factory=dict)  # for streams, if not recurrent
    #: T * B up to which arrays of the host are surely for these kernels with these weights
    few: float = math.inf
    #: by kernels and the type they compute in, where those are other than above
    others: dict[Any, tuple[Weights, ...]] = field(default_factory=dict)
    #: steps of cells that are prepared, by the shape of their input
    small: dict[tuple[int, ...], Any] = field(default_factory=dict)


#: Attributes that may be changed, and what they must be.
_CHECKED = {"dropout": check.probability, "batch_first": check.flag}


@cache
def _signature(cls: type["Module"]) -> Mapping[str, Any]:
    """What `_arguments` reads: what the base takes first, then what its class adds.

    That is the class that has the kind: another below it may take what it likes.
    """
    own = next((one for one in cls.__mro__ if "kind" in vars(one)), cls)
    found: dict[str, Any] = {}
    for one in reversed(own.__mro__):
        if issubclass(one, Module) and "__init__" in vars(one):
            for name, parameter in signature(one).parameters.items():
                if name != "seed" and parameter.kind is not Parameter.VAR_KEYWORD:
                    found.setdefault(name, parameter.default)
    return MappingProxyType(found)


#: What writes a model where a file's name tells of another format than fastrnn's own, and says
#: whether it has. `fastrnn.weights`, which stands above models, puts it here.
OTHER_FORMATS: list[Callable[["Named", Path], bool]] = []


class Named(ABC):
    """What has parameters by name: a module, or several as one."""

    #: what files call its class
    kind: ClassVar[str]

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name, read-only. `update` changes them."""

    @abstractmethod
    def update(self, values: Mapping[str, Any]) -> None:
        """Change some parameters, all or none of them."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make another one of the same kind and size."""

    def _names(self) -> Collection[str]:
        """The names of the parameters."""
        return self.parameters

    @property
    def _owner(self) -> str:
        """How errors call it."""
        return f"this {type(self).__name__}"

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters under torch's names."""
        return {name: value.copy() for name, value in self.parameters.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take all parameters from a mapping of just these names, as torch's strict loading.

        Raises ValueError for a missing, an unknown or a misshapen entry, TypeError for one
        that is no array of floats; nothing is changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is a {type(state_dict).__name__}, wanted a mapping")
        names = self._names()
        missing = [name for name in names if name not in state_dict]
        unknown = [str(name) for name in state_dict if name not in names]
        if missing or unknown:
            found = [f"misses {', '.join(missing)}"] if missing else []
            found += [f"holds unknown {', '.join(unknown)}"] if unknown else []
            wanted = ", ".join(names)
            raise ValueError(f"state_dict {' and '.join(found)}; {self._owner} has {wanted}")
        self.update(state_dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which `fastrnn.load` reads.

        In the format that the file's name tells, as `fastrnn.weights.save` (`.pt`, `.onnx`,
        `.keras`, ...), which raises what it raises; where it tells none, and for `.safetensors`,
        the parameters and the configuration in fastrnn's own, which anything that reads
        safetensors reads.
        """
        target = path_of(path)
        if not any(write_by_name(self, target) for write_by_name in OTHER_FORMATS):
            self.save_own(target)

    def save_own(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters and the configuration to a safetensors file of any name."""
        write(self.state_dict(), path, {KEY: self.description()})

    def description(self) -> str:
        """The model's class and configuration, as files keep them beside its weights."""
        return describe(self.kind, self._written())

    def _written(self) -> dict[str, Any]:
        """What its description has of it."""
        return self.config()


class Module(Named):
    """What layers, cells and linear layers share: parameters by torch's names, a device.

    The parameters' arrays are never written: `update` puts new ones in their place. So a
    pass that runs, and a tape that waits, keep the weights they began with, and threads
    may share a layer.
    """

    bias: bool
    _shapes: dict[str, Shape]
    _version: Version

    @classmethod
    def _arguments(cls) -> Mapping[str, Any]:
        """The arguments that make one, and their defaults, the seed left out."""
        return _signature(cls)

    def config(self) -> dict[str, Any]:
        """The arguments that make another one of the same kind and size."""
        return {
            name: self.compute if name == "dtype" else getattr(self, name)
            for name in self._arguments()
        }

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change what is fixed when the object is made: kernels rely on it."""
        fixed = name not in _CHECKED and (name == "compute" or name in self._arguments())
        if fixed and name in self.__dict__:
            raise AttributeError(f"{name} of {self._owner} is fixed at {getattr(self, name)!r}")
        if name in self.__dict__.get("_shapes", ()):
            raise AttributeError(
                f"parameters of {self._owner} are changed by update({{{name!r}: ...}})"
            )
        if name in _CHECKED:
            value = _CHECKED[name](name, value)
        super().__setattr__(name, value)

    def _set_up(self, device: str, dtype: Any) -> None:
        """Fix the float type and the device."""
        #: the type that products are computed in: "float32", "float64", "bfloat16", "float16"
        self.compute = check.compute_type("dtype", dtype)
        #: the type of all arrays: inputs, outputs, states, parameters
        self.dtype: np.dtype[Any] = np.dtype("float64" if self.compute == "float64" else "float32")
        self._kernels = self._checked_kernels(device)
        self.device = device
        self._locks: dict[int, Any] = {}

    def _checked_kernels(self, device: str) -> Kernels:
        """The kernels of a device, which have to know the type to compute in."""
        kernels = kernels_for(device)
        if not kernels.ON_HOST and self.compute not in GPU_COMPUTE:
            raise ValueError(f"dtype {self.compute!r} is for the CPU so far, not for {device!r}")
        if kernels.ON_HOST and self.compute not in CPU_COMPUTE:
            raise ValueError(
                f"dtype is {self.compute!r}, which is the GPU's alone: wanted "
                f"{', '.join(map(repr, CPU_COMPUTE))} on device {device!r}"
            )
        return kernels

    def _on_gpu(self) -> bool:
        """Whether streams are the GPU's."""
        return self.device == "cuda"

    def _refuse_tape(self) -> None:
        """Raise where a tape is asked for that no backward pass could use."""
        if self.compute in self._kernels.INFERENCE:
            raise ValueError(
                f"{self._owner} has dtype 'bfloat16', which on the CPU is for inference: call it, "
                "or train in 'float32' and load the parameters here"
            )

    @property
    def _lock(self) -> Any:
        """Held while parameters change; another one in a forked child, where its holder is gone."""
        # Reentrant, for a signal's handler that pickles the layer while it is in use.
        now = forks()
        return self._locks.get(now) or self._locks.setdefault(now, threading.RLock())

    def _draw(self, seed: Any) -> None:
        """Draw every parameter from U(-b, b) as torch does, b = 1/√H, or 1/√I if linear."""
        try:
            generator = np.random.default_rng(seed)
        except (TypeError, ValueError) as error:
            handlers.pass_on(error)
            raise type(error)(f"seed is {seed!r}, which NumPy refuses: {error}") from None
        size = sum(map(math.prod, self._shapes.values())) * self.dtype.itemsize
        try:
            if size > sys.maxsize:
                raise MemoryError
            values = {
                name: self._drawn(name, shape, generator) for name, shape in self._shapes.items()
            }
        except (ValueError, MemoryError):
            raise MemoryError(
                f"{self!r} has parameters of {size:,} bytes, more than there is room for"
            ) from None
        self._bind(values)
        self._seed_dropout(generator)

    def _drawn(self, name: str, shape: Shape, generator: np.random.Generator) -> Array:
        """The first value of a parameter."""
        bound = 1 / np.sqrt(self._fan)
        return generator.uniform(-bound, bound, shape).astype(self.dtype)

    def _seed_dropout(self, generator: np.random.Generator) -> None:
        self._dropout_seed, self._dropout_calls = int(generator.integers(2**63)), 0

    def _dropout_generator(self) -> np.random.Generator:
        """A generator for the masks of one call; calls at once get different ones.

        The layer keeps a seed and a count, not a generator: NumPy's holds a lock while it
        draws, which a forked child would inherit locked.
        """
        with self._lock:
            self._dropout_calls += 1
            return np.random.default_rng((self._dropout_seed, self._dropout_calls))

    def _bind(self, values: dict[str, Array]) -> None:
        """Take over arrays that belong to no one else."""
        for value in values.values():
            value.flags.writeable = False
        # Views, as an array's owner could make it writeable again.
        views = {name: value.view() for name, value in values.items()}
        self._renew(MappingProxyType(views))

    def _renew(self, values: Mapping[str, Array]) -> None:
        """Put parameters, which no one will change, and the device as it is now into use."""
        self._version = self._version_of(values)

    def _version_of(self, values: Mapping[str, Array]) -> Version:
        weights = self._make_weights(self._kernels, values, self.compute)
        few = math.inf
        if not self._kernels.ON_HOST:
            few = -1
        elif self.device == "auto" and not any(one.norm for one in weights):
            few = few_rows(weights)
        return Version(self.device, self._kernels, values, weights, few=few)

    @property
    @abstractmethod
    def _fan(self) -> int:
        """What the bound of the parameters' first values follows from."""

    @abstractmethod
    def _configure(self, *args: Any, **kwargs: Any) -> None:
        """Check the arguments and fix the parameters' shapes; draw nothing."""

    def _make_weights(
        self, kernels: Kernels, values: Mapping[str, Array], compute: str
    ) -> tuple[Weights, ...]:
        """The kernels' weights, layer-major, then direction; none if not recurrent."""
        return ()

    @classmethod
    def _restored(cls, config: Mapping[str, Any], values: Mapping[str, Any]) -> Self:
        """Another one from its configuration and parameters, nothing drawn."""
        self = cls._blank(config)
        self.load_state_dict(values)
        return self

    @classmethod
    def _blank(cls, config: Mapping[str, Any]) -> Self:
        """One of a configuration that has no parameters yet."""
        self = cls.__new__(cls)
        self._configure(**config)
        self._seed_dropout(np.random.default_rng())
        self._version = Version(self.device, self._kernels, {})
        return self

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name, read-only. `update` changes them."""
        return self._version.values

    def _names(self) -> Collection[str]:
        return self._shapes  # also before there are values

    def update(self, values: Mapping[str, Any]) -> None:
        """Change some parameters, all or none of them; the one way to change weights.

        values: arrays by name, of any float type, copied. Weights packed from the old ones
        are dropped; tapes keep theirs. Raises ValueError for an unknown name or another
        shape, TypeError for what is no array of floats.
        """
        self._replace(self._checked_values(values))

    def _checked_values(self, values: Mapping[str, Any], lead: Shape = ()) -> dict[str, Array]:
        """Copies of new values for some parameters, as they have to be, behind leading axes."""
        if not isinstance(values, Mapping):
            raise TypeError(f"values is a {type(values).__name__}, wanted a mapping")
        new = {}
        for name, value in values.items():
            if name not in self._shapes:
                raise ValueError(
                    f"{name!r} is no parameter; {self._owner} has {', '.join(self._shapes)}"
                )
            got = check.parameter(name, value, self.dtype)
            if got.dtype.kind != "f":
                raise TypeError(f"{name} has dtype {got.dtype}, wanted {self.dtype}")
            if got.shape != (*lead, *self._shapes[name]):
                wanted = (*lead, *self._shapes[name])
                raise ValueError(f"{name} has shape {got.shape}, wanted {wanted}")
            if not check.on_host(got):  # parameters are the host's
                got = got.get()  # type: ignore[attr-defined]
            new[name] = np.array(got, self.dtype, order="C")
        return new

    def _replace(self, new: dict[str, Array]) -> None:
        """Put checked values in the place of the old ones."""
        with self._lock:
            self._bind({**self.parameters, **new})

    def to(self, device: str) -> Self:
        """Move to "auto", "cpu" or "cuda", and return the same object.

        Raises RuntimeError, with the reason, if the device cannot be used.
        """
        kernels = self._checked_kernels(device)
        with self._lock:
            if device != self.device:
                self._kernels = kernels
                self.__dict__["device"] = device
                self._renew(self.parameters)
        return self

    def __repr__(self) -> str:
        """The call that makes another one of the kind."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to this process: the lock, the kernels, the packed weights."""
        with self._lock:
            state = {**self.__dict__, "_values": self.state_dict()}
        for name in ("_locks", "_kernels", "_version"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = state.pop("_values")
        self.__dict__.update(state)
        self._locks = {}
        self._kernels = kernels_for(self.device)
        self._bind(values)
