"""A module's weights as kernels read them, packed anew when a parameter has changed."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from fastrnn.adapting import Kept
from fastrnn.arrays import Array
from fastrnn.models.regularised import with_rates
from fastrnn.torch.devices import Device
from fastrnn.torch.fallbacks import LOW
from fastrnn.torch.kinds import SHORT
from fastrnn.torch.prepared import Packing
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.arrays.compare import Copies
from fastrnn_kernels.cpu.isa.host import current
from fastrnn_kernels.cpu.sequence.packs import address_of_panels
from fastrnn_kernels.weights import Weights


@dataclass(eq=False)
class Packed:
    """The weights of one module.

    shapes: of the parameters by name, layer-major, then direction; kinds: those that a direction
    of a layer has, in order.
    """

    cell: Cell
    shapes: dict[str, tuple[int, ...]]
    kinds: tuple[str, ...]
    #: By the type that products are computed in.
    _kept: dict[str, Kept[Any]] = field(default_factory=lambda: defaultdict(Kept), repr=False)
    #: Calls of little work that are prepared (`small.py`).
    small: dict[Any, Any] = field(default_factory=dict, repr=False)
    #: How weights are packed, by their type, and passes that are prepared (`prepared.py`).
    packing: dict[Any, Any] = field(default_factory=dict, repr=False)
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False)
    _derived: tuple[Any, Cell, tuple[Weights, ...]] | None = field(default=None, repr=False)

    def packs(
        self,
        device: Device,
        parameters: Sequence[Any],
        packing: Packing | None = None,
        backward: bool = False,
        inputs: bool = False,
        compute: str = "",
    ) -> Any:
        """What has `weights`, of each direction of each layer, and addresses of their `panels`.

        It is that of the last call if no parameter has changed: if neither its memory nor its
        version has. On the CPU its values are compared as well, as `.data`, NumPy and other
        processes write without a new version.

        packing: what packs them; backward: for the backward pass as well; inputs: and for the
        gradient of x. Parameters of bfloat16 and float16 are widened; compute: the type that
        products are computed in, of the parameters, so widened, if not given.

        Raises RuntimeError for a parameter of another shape.
        """
        places = [*map(_place, parameters)]
        key, kept = (device, places), self._kept[compute]
        found = kept.found(key, lambda copies: _same(copies, parameters))
        if found is not None:
            return found
        for (name, shape), parameter in zip(self.shapes.items(), parameters, strict=True):
            if parameter.shape != shape:
                raise RuntimeError(f"{name} has shape {tuple(parameter.shape)}, wanted {shape}")
        made: Any
        if packing is not None and all(map(_dense, parameters)):
            at = [place[0] for place in places]
            made = packing.pack(at, backward, inputs)
            copies = Copies((), (at, made.copies))
        else:
            copies = Copies([*map(_array, parameters)])
            values = [*map(_values, copies.arrays, (one.dtype for one in parameters))]
            parts = pairwise(range(0, len(parameters) + 1, self.each))
            named = [self._named(values[at:end]) for at, end in parts]
            made = _Made(
                tuple(device.kernels.Weights(self.cell, **one, compute=compute) for one in named)
            )
        kept.keep(key, copies, made)
        return made

    def derived(self, packs: Any, cell: Cell, rates: Array) -> tuple[Weights, ...]:
        """The weights of packs for a cell that is derived from theirs; the last ones are kept."""
        kept = self._derived
        if kept is None or kept[0] is not packs or kept[1] is not cell:
            found = tuple(with_rates(cell, one, rates) for one in packs.weights)
            kept = self._derived = packs, cell, found
        return kept[2]

    @property
    def each(self) -> int:
        """How many parameters a direction of a layer has."""
        return len(self.kinds)

    def _named(self, values: list[Array]) -> dict[str, Any]:
        """The parameters of a direction of a layer by the names that kernels have for them."""
        given = dict(zip(self.kinds, values, strict=True))
        named: dict[str, Any] = {short: given.pop(kind, None) for kind, short in SHORT.items()}
        if named["w_hh"] is None:  # no gate has an h-part
            named["w_hh"] = np.empty((0, named["w_ih"].shape[0] // self.cell.G), values[0].dtype)
        if given:
            named["units"] = np.stack([*given.values()])
        return named

    def copies_of(self, packs: Any) -> Copies | None:
        """The parameters' values that packs were made of, if they are the last."""
        found = (kept.copies_of(packs) for kept in [*self._kept.values()])
        return next(filter(None, found), None)


def fastest(bfloat16: bool) -> str:
    """What `Packed.packs` is to compute in, if products may be of bfloat16."""
    return "bfloat16" if bfloat16 and current().pairs else ""


@dataclass(eq=False)
class _Made:
    """Weights that pack themselves when they are first used."""

    weights: tuple[Weights, ...]

    def panels(self, kind: int) -> list[int]:
        """Where the CPU's panels of each pass begin, as `Packs` has them."""
        return [address_of_panels(one, kind) for one in self.weights]  # type: ignore[arg-type]


def _same(copies: Copies, parameters: Sequence[Any]) -> bool:
    """Whether parameters, which lie where they did, have the values that they had."""
    if parameters[0].is_cpu:
        return copies.current()
    # On a GPU comparing would wait for it; there what counts its writes is believed.
    return not any(parameter.is_inference() for parameter in parameters)


def _dense(parameter: Any) -> bool:
    """Whether its memory holds its values one behind the other, as kernels take them."""
    return parameter.dtype not in LOW and parameter.is_contiguous() and not parameter.is_neg()


def _array(parameter: Any) -> Array:
    """Over the parameter's memory: its values, or the bits of those that NumPy has no type for."""
    if parameter.dtype in LOW:
        parameter = parameter.detach().resolve_neg().view(torch.int16)
    array: Array = parameter.numpy(force=True)
    return array


def _values(array: Array, dtype: Any) -> Array:
    """What `_array` gave of a parameter of a type, as kernels take it."""
    if dtype not in LOW:
        return array
    wide: Array = torch.from_numpy(array).view(dtype).to(torch.float32).numpy()
    return wide


def _place(parameter: Any) -> tuple[Any, ...]:
    """Where its values lie, and how often they were written; inference mode does not count."""
    version = None if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), version, parameter.shape, parameter.stride(), parameter.dtype


#: Beside the modules, not in them: they stay as torch made them, to copy, pickle and swap.
_of_modules: "WeakKeyDictionary[Any, Packed]" = WeakKeyDictionary()


def forget(module: Any) -> None:
    """Keep nothing for a module that kernels no longer run."""
    _of_modules.pop(module, None)


def packed_of(module: Any) -> Packed:
    """The packed weights that are kept for a module."""
    cell = module._cell
    found = _of_modules.get(module)
    if found is None or found.cell is not cell:
        found = _of_modules[module] = Packed(cell, *module._shapes())
    return found


#: Beside parameters, by their storage: an operator is given no module. A storage outlives the
#: tensors that are made of it anew for each call.
_of_storages: "WeakKeyDictionary[Any, dict[Any, Packed]]" = WeakKeyDictionary()


def packed_for(parameters: Sequence[Any], key: Any, shapes: Callable[[], Any]) -> Packed:
    """The packed weights that are kept beside parameters, for a cell and sizes, a key.

    They are kept as long as the first parameter's memory, and are of the parameters' values as
    those of a module are: whoever else is given that memory for its first parameter, among others,
    has others packed.
    """
    first = parameters[0]
    storage = first.untyped_storage()
    kept = _of_storages.get(storage)
    if kept is None:
        kept = _of_storages.setdefault(storage, {})
    place = first.storage_offset(), key
    found = kept.get(place)
    if found is None:
        cell, kinds, *_ = key
        found = kept.setdefault(place, Packed(cell, shapes(), kinds))
    return found
