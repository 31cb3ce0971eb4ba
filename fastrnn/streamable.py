"""What a model has to tell for streams to be made of it."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from fastrnn import check
from fastrnn.check import Array
from fastrnn.parameters import Named
from fastrnn.tape import State
from fastrnn_kernels.cpu import Stage
from fastrnn_kernels.cpu.formats import BF16, FULL, INT8

if TYPE_CHECKING:
    from fastrnn.stateful import Stateful

#: One layer's h (B, P), and its other states (states but h, B, H).
LayerState = tuple[Array, Array]


class Streamable(Named, Generic[State]):
    """A model that can run as a stream: a layer, a cell, or several one after the other."""

    dtype: np.dtype[Any]
    products: str  # the type that products are computed in

    def stream(self, batch_size: int = 1, *, weights: str | None = None) -> "Stateful[State]":
        """A stream of this model: one step, or a block of them, at a time.

        batch_size: B, the rows that are stepped together.
        weights: how they are stored, which is what bounds a step of one row: in full
            ("float32", or "float64" of a model of that type), or of a float32 model "bf16" or
            "int8" (8 bits and a scale for each row). State and arithmetic are in full. None
            is in full, and "bf16" for a layer of bfloat16.

        Streams share the weights, packed once; each owns its state and buffers, and keeps
        the parameters it was made with until its `refresh`. Making the first stream of
        some sizes compiles it, once for this machine. Raises ValueError for a bidirectional
        layer, whose outputs need the future.

        A model with device="cuda" gives a `fastrnn.cuda_stream.CudaStream`, weights in full.
        """
        if self._on_gpu():
            from fastrnn.cuda_stream import CudaStream

            return CudaStream(self, batch_size, weights=weights)
        from fastrnn.stream import Stream

        return Stream(self, batch_size, weights=weights)

    @abstractmethod
    def _on_gpu(self) -> bool:
        """Whether its streams are the GPU's."""

    @abstractmethod
    def _layers(self) -> list[Any]:
        """The kernels' weights of its layers; raises ValueError where it cannot stream."""

    @abstractmethod
    def _stages(self, batch_size: int, weights: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        """The model as stages with their weights; raises ValueError where it cannot stream."""

    @abstractmethod
    def _join_layers(self, layers: Iterator[LayerState]) -> State:
        """The state in the model's own layout, of that of as many layers as it has."""

    @abstractmethod
    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        """A state in the model's own layout, checked, by layers."""


#: What does not matter to a stream.
_NO_MATTER = frozenset({"device", "dropout", "batch_first"})


def _essence(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _essence(value) for name, value in config.items() if name not in _NO_MATTER}
    return [_essence(value) for value in config] if isinstance(config, list) else config


def fingerprint(model: Streamable[Any], parameters: Mapping[str, Array], weights: str) -> str:
    """What tells a model with these parameters, stored so, from others."""
    essence = json.dumps([_essence(model.config()), weights], sort_keys=True)
    digest = hashlib.sha256(essence.encode())
    for name, value in sorted(parameters.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return f"{type(model).__name__} {digest.hexdigest()[:32]}"


def storage(model: Streamable[Any], weights: str | None) -> str:
    """How a stream's weights are stored, as the kernels call it; checked."""
    if weights is None:
        return BF16 if model.products == "bfloat16" else FULL
    own = str(model.dtype)
    check.choice("weights", weights, [own, BF16, INT8] if own == "float32" else [own])
    return FULL if weights == own else weights
