"""What a stream asks of the model that it is made from."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, State
from fastrnn_kernels.cpu.device import Stage
from fastrnn_kernels.cpu.product.storage import BF16, FULL, INT8

#: One layer's h (B, P), and its other states (states but h, B, H).
LayerState = tuple[Array, Array]


class Source(ABC, Generic[State]):
    """A model that can run as a stream: a layer, a cell, or several one after the other."""

    dtype: np.dtype[Any]
    compute: str  # the type that products are computed in

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name, as they are now."""

    @abstractmethod
    def _written(self) -> dict[str, Any]:
        """The arguments that make another model of the same kind and size."""

    @abstractmethod
    def _on_gpu(self) -> bool:
        """Whether its streams are the GPU's."""

    @abstractmethod
    def _layers(self) -> list[Any]:
        """The kernels' weights of its layers; raises ValueError where it cannot stream."""

    @abstractmethod
    def _stages(self, batch_size: int, storage: str) -> list[tuple[Stage, tuple[Array, ...]]]:
        """The model as stages with their weights; raises ValueError where it cannot stream."""

    @abstractmethod
    def _join_layers(self, layers: Iterator[LayerState]) -> State:
        """The state in the model's own layout, of that of as many layers as it has."""

    @abstractmethod
    def _split_layers(self, name: str, state: Any, batch_size: int) -> Sequence[LayerState]:
        """A state in the model's own layout, checked, by layers."""


#: What does not matter to a stream.
_NO_MATTER = frozenset(
    {
        "device", "dropout", "batch_first",
        "input_dropout", "recurrent_dropout", "recurrent_dropout_on", "weight_dropout",
    }
)  # fmt: skip


def _essence(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _essence(value) for name, value in config.items() if name not in _NO_MATTER}
    return [_essence(value) for value in config] if isinstance(config, list) else config


def fingerprint(model: Source[Any], parameters: Mapping[str, Array], storage: str) -> str:
    """What tells a model with these parameters, stored so, from others."""
    essence = json.dumps([_essence(model._written()), storage], sort_keys=True)
    digest = hashlib.sha256(essence.encode())
    for name, value in sorted(parameters.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return f"{type(model).__name__} {digest.hexdigest()[:32]}"


def storage_of(model: Source[Any], weights: str | None) -> str:
    """How a stream's weights are stored, as the kernels call it; checked."""
    if weights is None:
        return BF16 if model.compute == "bfloat16" else FULL
    own = str(model.dtype)
    check.choice("weights", weights, [own, BF16, INT8] if own == "float32" else [own])
    return FULL if weights == own else weights
