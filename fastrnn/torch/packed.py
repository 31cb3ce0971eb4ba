"""A module's weights as kernels read them, packed anew when a parameter has changed."""

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastrnn.check import Array
from fastrnn.torch.devices import Device
from fastrnn_kernels.cell import Cell
from fastrnn_kernels.cpu import Weights
from fastrnn_kernels.cpu.compare import same_bits


@dataclass(frozen=True, eq=False)
class _Kept:
    key: Any
    copies: list[Array]
    weights: tuple[Weights, ...]


@dataclass(eq=False)
class Packed:
    """The weights of one module.

    shapes: of the parameters by name, layer-major, then direction; each: how many of them a
    direction of a layer has: w_ih, w_hh, then b_ih and b_hh, then w_hr.
    """

    cell: Cell
    shapes: dict[str, tuple[int, ...]]
    each: int
    _kept: _Kept | None = field(default=None, repr=False)

    def weights(self, device: Device, parameters: list[Any]) -> tuple[Weights, ...]:
        """Of each direction of each layer; those of the last call if no parameter has changed.

        A parameter has changed if its memory or its version has. On the CPU values are compared
        as well, since `.data`, NumPy and other processes write without raising the version.
        Raises RuntimeError for a parameter of another shape.
        """
        key = [device, *((p.data_ptr(), _version(p)) for p in parameters)]
        kept = self._kept  # another thread may put something else there
        if kept is None or kept.key != key or not _same(kept.copies, parameters):
            kept = self._kept = self._packed(key, device, parameters)
        return kept.weights

    def _packed(self, key: Any, device: Device, parameters: list[Any]) -> _Kept:
        for (name, shape), parameter in zip(self.shapes.items(), parameters, strict=True):
            if parameter.shape != shape:
                raise RuntimeError(f"{name} has shape {tuple(parameter.shape)}, wanted {shape}")
        # Copies: a backward pass packs later, and has to get the values of the forward pass.
        copies = [np.array(p.numpy(force=True), order="C") for p in parameters]
        weights = tuple(
            device.kernels.Weights(self.cell, *_in_order(copies[at : at + self.each]))
            for at in range(0, len(copies), self.each)
        )
        return _Kept(key, copies, weights)


def _in_order(parts: list[Array]) -> list[Array | None]:
    """w_ih, w_hh, b_ih, b_hh, w_hr; None for what is not there."""
    biases = parts[2:4] if len(parts) >= 4 else [None, None]
    return [*parts[:2], *biases, parts[-1] if len(parts) in (3, 5) else None]


def _version(parameter: Any) -> int:
    """How often it was written; tensors of inference mode do not count."""
    return -1 if parameter.is_inference() else parameter._version


def _same(copies: list[Array], parameters: list[Any]) -> bool:
    if parameters[0].is_cpu:
        return all(
            same_bits(copy, parameter.numpy(force=True))
            for copy, parameter in zip(copies, parameters, strict=True)
        )
    return not any(parameter.is_inference() for parameter in parameters)


#: Beside the modules, not in them: they stay as torch made them, to copy, pickle and swap.
_of_modules: "WeakKeyDictionary[Any, Packed]" = WeakKeyDictionary()


def packed_of(module: Any) -> Packed:
    """The packed weights that are kept for a module."""
    cell = module._cell
    found = _of_modules.get(module)
    if found is None or found.cell is not cell:
        found = _of_modules[module] = Packed(cell, *module._shapes())
    return found
