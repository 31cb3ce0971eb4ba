"""Several models of one kind and size in one call, each with weights of its own."""

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, NoReturn, Self

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, State
from fastrnn.device import kernels_of
from fastrnn.files.description import kept
from fastrnn.models.layer import Layer, checked_clip
from fastrnn.models.module import Named, Version
from fastrnn.models.stack import Call, draw_masks, run_backwards, run_forwards, time_first
from fastrnn.models.tape import Gradients, Tape, check_owner
from fastrnn.models.together import calls_of, of_model

#: Models that there may be: more is a mistake.
_MOST = 100_000


@dataclass(frozen=True, eq=False)
class EnsembleTape:
    """One forward pass of an ensemble, as its `backward` needs it: tapes of its models.

    shape: of y; shared: whether all had one input.
    """

    owner: Any = field(repr=False)
    shape: tuple[int, ...]
    shared: bool
    tapes: Sequence[Tape] = field(repr=False)


class _Kept(NamedTuple):
    """The parameters between two changes: all, and what a layer has of those of each model."""

    values: Mapping[str, Array]
    versions: tuple[Version, ...]


def _seed(given: Any) -> tuple[int, ...]:
    """A seed as the integers that it is made of."""
    if given is None:
        entropy = np.random.SeedSequence().entropy
        assert isinstance(entropy, int)
        return (entropy,)
    parts = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    try:
        return tuple(operator.index(part) for part in parts)
    except TypeError:
        raise TypeError(f"seed is {given!r}, wanted an integer, several, or None") from None


def _sum(arrays: Sequence[Array]) -> Array:
    """The sum, from the first to the last."""
    total, *rest = arrays
    with np.errstate(all="ignore"):  # as the kernels, which say nothing of infinity either
        for one in rest:
            total += one
    return total


class Ensemble(Named, Generic[State]):
    """M layers of one kind and size that run together, each with weights of its own.

        ensemble = fastrnn.Ensemble(fastrnn.LSTM, 64, 128, models=8, seed=0)
        y, (h_n, c_n) = ensemble(x)              # x (T, B, 64) for all; y (8, T, B, 128)
        y, state, tape = ensemble.forward(x)
        gradients = ensemble.backward(tape, dy)  # .parameters["weight_ih_l0"] (8, 512, 64)

    As an ensemble, or to try several seeds or rates at once: the passes of all models go to the
    threads together, where one of a small model is too little for them. Each model gives what its
    layer gives by itself, bit for bit, whatever the number of threads. The equations, and the
    shapes of a single model, are those of the layer's class.

    layer: the class of the layers: RNN, LSTM, GRU, or a cell of one's own (`fastrnn.cell`).
    models: M. Other arguments are the layer's.
    seed: an integer, or a sequence of them. Model m is then drawn as `layer(..., seed=(*seed, m))`
        draws, with the dropout of that layer; from the system's entropy if None.

    Parameters, states, outputs and gradients have an axis of M before those of the layer, as
    weight_ih_l0 (M, 4 H, I) and h_0 (M, num_layers * D, B, P).

    Raises TypeError or ValueError for wrong arguments.
    """

    kind = "Ensemble"
    models: int

    def __init__(
        self,
        layer: type[Layer[State]],
        /,
        *arguments: Any,
        models: int,
        seed: Any = None,
        **options: Any,
    ) -> None:
        if not (isinstance(layer, type) and issubclass(layer, Layer)):
            raise TypeError(f"layer is {layer!r}, wanted a class of layers, as fastrnn.LSTM")
        many = check.size("models", models, most=_MOST)
        self._of([layer(*arguments, **options, seed=(*_seed(seed), m)) for m in range(many)])

    @classmethod
    def from_members(cls, members: Iterable[Layer[State]]) -> "Ensemble[State]":
        """An ensemble of copies of layers, which are all of one class and configuration.

        Raises TypeError or ValueError for what are no such layers.
        """
        layers = list(members)
        if not layers:
            raise ValueError("members are none, wanted at least one layer")
        for m, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"member {m} is a {type(layer).__name__}, wanted a layer")
            same = type(layer) is type(layers[0]) and layer._written() == layers[0]._written()
            if not same:
                raise ValueError(
                    f"member {m} is {layer!r}, wanted one like member 0, {layers[0]!r}"
                )
        self = cls.__new__(cls)
        self._of(layers)
        return self

    def _of(self, layers: Sequence[Layer[State]]) -> None:
        first = layers[0]
        self._set_up(
            type(first),
            first.config(),
            {name: np.stack([one.parameters[name] for one in layers]) for name in first.parameters},
            [(one._dropout_seed, one._dropout_calls) for one in layers],
        )

    def _set_up(
        self,
        layer: type[Layer[State]],
        config: Mapping[str, Any],
        values: dict[str, Array],
        dropouts: Sequence[tuple[int, int]],
    ) -> None:
        """Take over a layer's class and configuration, and arrays that belong to no one else."""
        #: what all models have in common; it has no parameters
        self._layer: Layer[State] = layer._blank(config)
        self.__dict__["models"] = len(dropouts)
        #: of each model the seed of its dropout's masks, and the calls that it has had before
        self._dropouts, self._calls_made = tuple(dropouts), 0
        self._bind(values)

    def _bind(self, values: Mapping[str, Array]) -> None:
        """Take over arrays that belong to no one else."""
        for value in values.values():
            value.flags.writeable = False
        # Views, as an array's owner could make it writeable again.
        views = {name: value.view() for name, value in values.items()}
        self._renew(MappingProxyType(views))

    def _renew(self, values: Mapping[str, Array]) -> None:
        make = self._layer._version_of
        each = ({name: value[m] for name, value in values.items()} for m in range(self.models))
        self._kept = _Kept(values, tuple(make(MappingProxyType(one)) for one in each))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change what is fixed when the object is made."""
        if name == "models":
            raise AttributeError(f"models of {self._owner} is fixed at {self.models}")
        super().__setattr__(name, value)

    @property
    def input_size(self) -> int:
        """I: the width of x."""
        return self._layer.input_size

    @property
    def output_size(self) -> int:
        """D * P: the width of y."""
        return self._layer.output_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of all arrays."""
        return self._layer.dtype

    @property
    def device(self) -> str:
        """The device: "auto", "cpu" or "cuda"."""
        return self._layer.device

    def to(self, device: str) -> Self:
        """Move to "auto", "cpu" or "cuda", and return the same object.

        Raises RuntimeError, with the reason, if the device cannot be used.
        """
        with self._lock:
            self._layer.to(device)
            self._renew(self._kept.values)
        return self

    @property
    def _lock(self) -> Any:
        return self._layer._lock

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name, (M, ...) each, read-only. `update` changes them."""
        return self._kept.values

    def _names(self) -> Collection[str]:
        return self._layer._shapes

    def update(self, values: Mapping[str, Any]) -> None:
        """Change some parameters, all or none of them: arrays by name, (M, ...) each, copied.

        Raises ValueError for an unknown name or another shape, TypeError for what is no array of
        floats.
        """
        new = self._layer._checked_values(values, (self.models,))
        with self._lock:
            self._bind({**self.parameters, **new})

    def member(self, m: int) -> Layer[State]:
        """Model m as a layer: a copy, with the parameters as they are now.

        Raises IndexError if there is none.
        """
        number = check.size("m", m, least=-(2**31))
        if not 0 <= number < self.models:
            raise IndexError(f"m is {number}, wanted 0 to {self.models - 1}")
        values = {name: value[number] for name, value in self.parameters.items()}
        layer = type(self._layer)._restored(self._layer.config(), values)
        seed, calls = self._dropouts[number]
        layer._dropout_seed, layer._dropout_calls = seed, calls + self._calls_made
        return layer

    def stream(self, *_: Any, **__: Any) -> NoReturn:
        """Raise TypeError: a stream is of one model."""
        raise TypeError(
            f"{self._owner} of {self.models} models cannot stream: make a stream of each that is "
            "wanted, as ensemble.member(0).stream()"
        )

    def __call__(
        self, x: Any, state: State | None = None, lengths: Any = None, reset: Any = None
    ) -> tuple[Array, State]:
        """Run all models over a whole sequence for inference: no dropout, no tape.

        x: (T, B, I), or (B, T, I) with batch_first, or (T, I), is for all models; (M, T, B, I), or
            (M, B, T, I), has one for each. (T, I) for each is (M, T, 1, I).
        state: h_0 (M, num_layers * D, B, P), for the LSTM (h_0, c_0), as the layer's, with M
            first; as the layer begins if None.
        lengths: (B,) for all, or (M, B). reset: as x without its last axis, for all or for each.

        Returns y (M, T, B, D * P), or as x is laid out, and the state, laid out like `state`.
        Raises TypeError or ValueError for wrong arguments.
        """
        given = x, state, lengths, reset
        calls, _ = calls_of(self._layer, self._kept.versions, *given, taping=False)
        y, final, _ = run_forwards(self._layer._stack, calls, [None] * self.models, taping=False)
        return calls[0].as_given(y), calls[0].joined(final)

    def forward(
        self,
        x: Any,
        state: State | None = None,
        lengths: Any = None,
        reset: Any = None,
        training: bool = True,
        rng: np.random.Generator | None = None,
        checkpoint: int | str | None = None,
    ) -> tuple[Array, State, EnsembleTape]:
        """Run all models over a whole sequence and keep what `backward` needs.

        Arguments as those of a plain call; `training` and `checkpoint` as those of a layer's
        forward. rng: draws the dropout masks of one model after the other; each model's own, of
        its seed, if None.

        Returns y, the final state and the tape.
        """
        layer = self._layer
        layer._check_training(training, rng)
        drawing = training and layer._rates.drawing
        calls, shared = calls_of(
            layer, self._kept.versions, x, state, lengths, reset, taping=True,
            rather_cpu=checkpoint is not None or drawing, drawing=drawing,
        )  # fmt: skip
        first = calls[0]
        every = layer._segments(checkpoint, first)
        masks: list[Any] = [None] * self.models
        drawn: list[Any] = [None] * self.models
        dropout = layer.dropout if layer._drops(training) else 0.0
        if dropout > 0 or drawing:
            generators = self._generators() if rng is None else [rng] * self.models
            for m, (call, one) in enumerate(zip(calls, generators, strict=True)):
                drawn[m] = layer._rates.drawn(one) if drawing else None
                masks[m] = draw_masks(layer._stack, call, dropout, one, drawn[m])
                if drawn[m] is not None:
                    call.weights = drawn[m].weights(call.weights)
        y, final, tapes = run_forwards(
            layer._stack, calls, masks, taping=True, every=every, drawn=drawn
        )
        given = first.as_given(y)
        learned = layer._learned and state is None
        each = [
            Tape(
                self, given.shape[1:], first.batched, first.batch_first, passes, mask, first.host,
                first.kernels.NAME, learned, drawn=own,
            )
            for passes, mask, own in zip(tapes, masks, drawn, strict=True)
        ]  # fmt: skip
        return given, first.joined(final), EnsembleTape(self, given.shape, shared, each)

    def backward(
        self,
        tape: EnsembleTape,
        dy: Any,
        dstate: State | None = None,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
    ) -> Gradients[State]:
        """Gradients of a loss by backpropagation through time, of all models.

        tape: from this ensemble's `forward`; it may be used again.
        dy: gradient of y, (M, ...) in y's shape; None for zeros.
        dstate: gradient of the final state, laid out like it; zeros if None.
        clip_value, clip_norm: as those of a layer's backward.

        Returns the gradients of x, of the initial state, and of each parameter by name, (M, ...)
        each; of an x that was for all models, their sum, from the first to the last. Raises
        TypeError or ValueError for wrong arguments.
        """
        check_owner(tape, EnsembleTape, self, "another ensemble, {!r}")
        layer, M, first = self._layer, self.models, tape.tapes[0]
        kernels = kernels_of(first.device)
        clip = checked_clip(kernels, clip_value, clip_norm)
        if dy is None:
            dy = kernels.xp.zeros(tape.shape, layer.dtype)
        dy = check.shaped("dy", dy, layer.dtype, tape.shape, "that of y", layer._owner)
        rows = [one.passes[0].rows for one in tape.tapes]
        T, B, batched = rows[0].T, rows[0].B, first.batched
        given = layer._checked_states("dstate", dstate, B, batched, M)
        told = f"backward of {layer._owner}, M={M}, T={T}, B={B}"
        kernels.check_backward(first.passes, layer.directions, lambda: told)
        calls = [
            Call(
                kernels, (), time_first(dy[m], batched, first.batch_first),
                layer._states(kernels, "dstate", of_model(given, m), B), rows[m], None, batched,
                first.batch_first, first.host,
            )
            for m in range(M)
        ]  # fmt: skip
        passes, masks = [one.passes for one in tape.tapes], [one.masks for one in tape.tapes]
        dxs, d_start, found = run_backwards(layer._stack, passes, masks, calls, clip=clip)
        for own, one in zip(tape.tapes, found, strict=True):
            if own.drawn is not None:
                own.drawn.mask_gradients(one, kernels)
        if kernels.ON_HOST:
            for dx, of in zip(dxs, rows, strict=True):
                of.clear_padding(dx)
        parameters = [
            layer._of_parameters(kernels, one, [state[m] for state in d_start], first)
            for m, one in enumerate(found)
        ]
        call, xp = calls[0], np if first.host else kernels.xp
        return Gradients(
            call.as_given(_sum(dxs) if tape.shared else kernels.xp.stack(dxs)),
            call.joined(d_start),
            {name: xp.stack([one[name] for one in parameters]) for name in parameters[0]},
        )

    def tape_bytes(self, T: int, B: int, checkpoint: int | str | None = None) -> int:
        """Bytes that the tape of T steps of B sequences keeps for all models, each with its input.

        An input for all is kept once. checkpoint: as that of `forward`.
        """
        version = self._kept.versions[0]
        return self.models * self._layer._tape_bytes(version, T, B, checkpoint)

    def _generators(self) -> list[np.random.Generator]:
        """Of each model, what draws its masks of one call."""
        with self._lock:
            self._calls_made += 1
            now = self._calls_made
        return [np.random.default_rng((seed, calls + now)) for seed, calls in self._dropouts]

    def config(self) -> dict[str, Any]:
        """What makes another one: how many models, and a layer's class and configuration."""
        layer = self._layer
        return {"models": self.models, "class": layer.kind, "config": kept(layer._written())}

    @classmethod
    def _restored(
        cls, layer: type[Layer[Any]], config: Mapping[str, Any], models: Any,
        values: Mapping[str, Any],
    ) -> "Ensemble[Any]":  # fmt: skip
        """Another one from its configuration and parameters, nothing drawn."""
        many = check.size("models", models, most=_MOST)
        blank = layer._blank(config)
        missing = [name for name in blank._shapes if name not in values]
        unknown = [name for name in values if name not in blank._shapes]
        if missing or unknown:
            raise ValueError(f"it misses {missing} and holds unknown {unknown}")
        found = blank._checked_values(values, (many,))
        self = cls.__new__(cls)
        seed = np.random.default_rng()
        dropouts = [(int(seed.integers(2**63)), 0) for _ in range(many)]
        self._set_up(layer, blank.config(), found, dropouts)
        return self

    def __repr__(self) -> str:
        """The call that makes another one of the kind."""
        layer = self._layer
        arguments = ", ".join(f"{name}={value!r}" for name, value in layer.config().items())
        return f"Ensemble({type(layer).__name__}, {arguments}, models={self.models})"

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to this process."""
        with self._lock:
            layer = self._layer
            return {
                **self.__dict__, "_layer": (type(layer), layer.config()),
                "_kept": self.state_dict(),
            }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        (layer, config), values = state.pop("_layer"), state.pop("_kept")
        self.__dict__.update(state)
        self._layer = layer._blank(config)
        self._bind(values)
