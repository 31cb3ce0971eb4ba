"""Modules one after the other, as one model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, SupportsIndex, overload

import numpy as np

from fastrnn.arrays import Array
from fastrnn.files.description import kept
from fastrnn.models.dropout import Dropout
from fastrnn.models.embedding import Embedding
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.part import Part, Ragged
from fastrnn.models.pool import Pool
from fastrnn.models.streamable import Streamable
from fastrnn.models.tape import Gradients, check_owner
from fastrnn.streams.source import LayerState
from fastrnn_kernels import handlers
from fastrnn_kernels.cpu.device import Stage

#: The states of the recurrent layers of a model, in order, each as its layer has it.
States = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class SequentialTape:
    """One forward pass of a model, as its `backward` needs it."""

    owner: Any = field(repr=False)
    tapes: Sequence[Any] = field(repr=False)


#: What a model may be made of.
Piece = Layer[Any] | Linear | Part


def _width_in(module: Piece) -> int | None:
    """The values that a module takes at a step; None for any number."""
    if isinstance(module, Part):
        return module._width_in()
    return module.in_features if isinstance(module, Linear) else module.input_size


def _width_out(module: Piece, width: int | None) -> int | None:
    """The values that a module gives, of so many."""
    if isinstance(module, Part):
        return module._width_out(width)
    return module.out_features if isinstance(module, Linear) else module.output_size


def _check_order(modules: Sequence[Piece]) -> int:
    """Raise ValueError where a module does not fit those before it.

    Returns how many of the values that a Pool gets are those of a reverse direction.
    """
    width: int | None = _width_in(modules[0])
    pooled: int | None = None
    reverse = of_pool = 0
    for k, module in enumerate(modules):
        wanted = _width_in(module)
        if k and wanted is not None and width is not None and wanted != width:
            raise ValueError(f"module {k} takes {wanted} values, module {k - 1} gives {width}")
        if k and isinstance(module, Embedding):
            raise ValueError(f"module {k} is an Embedding, which takes tokens: wanted it first")
        if pooled is not None and (isinstance(module, Layer) or getattr(module, "pools", False)):
            raise ValueError(
                f"module {k} is a {module.kind}, and behind the Pool, module {pooled}, there is no "
                "time for it"
            )
        if isinstance(module, Pool):
            pooled, of_pool = k, reverse
        if not isinstance(module, Dropout):
            reverse = 0
            if isinstance(module, Layer) and module.bidirectional:
                reverse = module.state_size
        width = _width_out(module, width)
    return of_pool


class Sequential(Streamable[States]):
    """Recurrent and linear layers one after the other, and what stands between them.

        model = fastrnn.Sequential(fastrnn.GRU(40, 64), fastrnn.Linear(64, 1, activation="sigmoid"))
        y, states = model(x)             # x (T, B, 40), y (T, B, 1), states (h_n,)

    modules: RNN, LSTM, GRU and layers of other cells, Linear, Embedding (first), Dropout, and Pool,
    behind which there is no axis of time; each takes what the one before gives. All are of one
    float type and order of axes. `len`, indices and iteration are those of `modules`; a slice is
    a Sequential of the same layers, not of copies. Parameters have the number of their module
    before their name, `"0.weight_ih_l0"`, as in `torch.nn.Sequential`.

    Raises TypeError or ValueError for what is no such layer or does not fit the one before.
    """

    kind = "Sequential"

    def __init__(self, *modules: Piece) -> None:
        if not modules:
            raise ValueError("modules are none, wanted at least one layer")
        for k, module in enumerate(modules):
            if not isinstance(module, Layer | Linear | Part):
                raise TypeError(
                    f"module {k} is a {type(module).__name__}, wanted RNN, LSTM, GRU, Linear, "
                    "Embedding, Dropout or Pool"
                )
            if module.dtype != modules[0].dtype:
                raise ValueError(
                    f"module {k} has dtype {module.dtype}, module 0 has {modules[0].dtype}"
                )
        self._reverse = _check_order(modules)
        layers = [module for module in modules if isinstance(module, Layer)]
        if len({layer.batch_first for layer in layers}) > 1:
            raise ValueError("modules differ in batch_first, wanted one order of axes")
        self.modules = modules
        self.dtype = modules[0].dtype
        found = {module.compute for module in layers}
        self.compute = found.pop() if len(found) == 1 else str(self.dtype)

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self.modules)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Piece: ...

    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...

    def __getitem__(self, index: Any) -> Any:
        """A module, or of a slice the Sequential of its modules; IndexError if there is none."""
        if isinstance(index, slice):
            found = self.modules[index]
            if not found:
                raise IndexError(f"modules {index.start}:{index.stop}:{index.step} are none")
            return Sequential(*found)
        try:
            return self.modules[index]
        except IndexError:
            raise IndexError(
                f"module {index} is not there: this Sequential has {len(self)}"
            ) from None

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name, read-only. `update` changes them."""
        return MappingProxyType(
            {
                f"{k}.{name}": value
                for k, module in enumerate(self.modules)
                for name, value in module.parameters.items()
            }
        )

    def update(self, values: Mapping[str, Any]) -> None:
        """Change some parameters, all or none of them; raises as `load_state_dict`."""
        if not isinstance(values, Mapping):
            raise TypeError(f"values is a {type(values).__name__}, wanted a mapping")
        parts: list[dict[str, Any]] = [{} for _ in self.modules]
        for name, value in values.items():
            number, _, rest = str(name).partition(".")
            if name not in self.parameters:
                wanted = ", ".join(self.parameters)
                raise ValueError(f"{name!r} is no parameter; this Sequential has {wanted}")
            parts[int(number)][rest] = value
        new = []
        for k, (module, part) in enumerate(zip(self.modules, parts, strict=True)):
            try:
                new.append(module._checked_values(part))
            except (TypeError, ValueError) as error:
                handlers.pass_on(error)
                raise type(error)(f"in module {k}: {error}") from None
        for module, checked in zip(self.modules, new, strict=True):
            module._replace(checked)

    def config(self) -> dict[str, Any]:
        """What `Sequential` is made of: of each module its class and its configuration."""
        return {
            "modules": [
                {
                    "class": module.kind,
                    "config": kept(module._written()),
                }
                for module in self.modules
            ]
        }

    def __call__(
        self,
        x: Any,
        states: Sequence[Any] | None = None,
        lengths: Any = None,
        reset: Any = None,
    ) -> tuple[Array, States]:
        """Run over a whole sequence for inference.

        x (T, B, I), or as the layers take it; tokens (T, B) where an Embedding is first. states: of
        the recurrent layers in order, each as its layer takes it; zeros if None. lengths, reset: as
        those of a layer's call, for all layers.

        Returns y and the final states. Raises TypeError or ValueError for wrong arguments.
        """
        begin, final = iter(self._states("states", states)), []
        ragged = self._ragged(x, lengths)
        for module in self.modules:
            if isinstance(module, Part):
                x = module._run(x, ragged)
                ragged = replace(ragged, timed=ragged.timed and not module.pools)
            elif isinstance(module, Linear):
                x = module(x)
            else:
                x, state = module(x, next(begin), lengths, reset)
                final.append(state)
        return x, tuple(final)

    def forward(
        self,
        x: Any,
        states: Sequence[Any] | None = None,
        training: bool = True,
        rng: np.random.Generator | None = None,
        checkpoint: int | str | None = None,
        lengths: Any = None,
        reset: Any = None,
    ) -> tuple[Array, States, SequentialTape]:
        """Run over a whole sequence and keep what `backward` needs.

        Arguments as those of a plain call; `training`, `rng` and `checkpoint` as those of a
        layer's forward.
        Returns y, the final states and the tape.
        """
        begin = iter(self._states("states", states))
        final: list[Any] = []
        tapes: list[Any] = []
        ragged = self._ragged(x, lengths)
        for module in self.modules:
            tape: Any
            if isinstance(module, Part):
                x, tape = module._forward(x, ragged, training, rng)
                ragged = replace(ragged, timed=ragged.timed and not module.pools)
            elif isinstance(module, Linear):
                x, tape = module.forward(x)
            else:
                x, state, tape = module.forward(
                    x, next(begin), lengths, reset, training, rng, checkpoint=checkpoint
                )
                final.append(state)
            tapes.append(tape)
        return x, tuple(final), SequentialTape(self, tapes)

    def backward(
        self,
        tape: SequentialTape,
        dy: Any,
        dstates: Sequence[Any] | None = None,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> Gradients[States]:
        """Gradients of a loss: of x, of the initial states, and of each parameter by name.

        tape: from this model's `forward`. dy: gradient of y; dstates: of the final states,
        zeros if None. clip_value, clip_norm: as those of a layer's backward. Raises TypeError or
        ValueError for wrong arguments.
        """
        check_owner(tape, SequentialTape, self, "another model")
        end = list(self._states("dstates", dstates))
        states: list[Any] = []
        parameters: dict[str, Array] = {}
        for k in reversed(range(len(self.modules))):
            module = self.modules[k]
            found: Gradients[Any]
            if isinstance(module, Part):
                found = module._backward(tape.tapes[k], dy)
            elif isinstance(module, Linear):
                found = module.backward(tape.tapes[k], dy)
            else:
                found = module.backward(
                    tape.tapes[k], dy, end.pop(), clip_value=clip_value, clip_norm=clip_norm
                )
                states.append(found.state)
            dy = found.x
            parameters |= {f"{k}.{name}": value for name, value in found.parameters.items()}
        return Gradients(dy, tuple(reversed(states)), parameters)

    def tape_bytes(self, T: int, B: int, checkpoint: int | str | None = None) -> int:
        """Bytes that the tape of T steps of B sequences keeps; arguments as those of a layer's."""
        return sum(
            module.tape_bytes(T, B)
            if isinstance(module, Linear | Part)
            else module.tape_bytes(T, B, checkpoint)
            for module in self.modules
        )

    def _ragged(self, x: Any, lengths: Any) -> Ragged:
        """How the sequences of a call lie."""
        batch_first = any(m.batch_first for m in self.modules if isinstance(m, Layer))
        batched = np.ndim(x) > (1 if isinstance(self.modules[0], Embedding) else 2)
        return Ragged(int(batch_first and batched), lengths, self._reverse)

    def _states(self, name: str, given: Any) -> Sequence[Any]:
        many = sum(isinstance(module, Layer) for module in self.modules)
        if given is None:
            return [None] * many
        if not isinstance(given, tuple | list) or len(given) != many:
            came = f"{len(given)} of them" if isinstance(given, tuple | list) else type(given)
            raise TypeError(f"{name} is {came}, wanted a tuple of {many}, one of each layer")
        return given

    def _on_gpu(self) -> bool:
        found = {module._on_gpu() for module in self.modules}
        if len(found) > 1:
            where = ", ".join(f"{k} on {module.device!r}" for k, module in enumerate(self.modules))
            raise ValueError(f"modules are not on one device, as a stream's have to be: {where}")
        return found.pop()

    def _layers(self) -> list[Any]:
        return [layer for module in self.modules for layer in module._layers()]

    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        return [stage for module in self.modules for stage in module._stages(batch_size, storage)]

    def _join_layers(self, layers: Iterator[LayerState]) -> States:
        return tuple(
            module._join_layers(layers) for module in self.modules if isinstance(module, Layer)
        )

    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        given = iter(self._states(name, state))
        return [
            layer
            for module in self.modules
            if isinstance(module, Layer)
            for layer in module._split_layers(name, next(given), batch_size)
        ]

    def __repr__(self) -> str:
        """The call that makes another one of the kind."""
        return f"Sequential({', '.join(map(repr, self.modules))})"
