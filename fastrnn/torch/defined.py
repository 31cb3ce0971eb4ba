"""Modules of cells that a program has defined (`fastrnn.cell`), as torch's own are."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.utils.rnn import PackedSequence

from fastrnn.models.defined import Defined, DefinedCell
from fastrnn.torch.cells import CellModule
from fastrnn.torch.equations import run
from fastrnn.torch.graph import as_hidden
from fastrnn.torch.kinds import Shapes
from fastrnn.torch.layers import Layer
from fastrnn.torch.lengths import rows_of
from fastrnn.torch.modes import evaluated, mode_of
from fastrnn_kernels.cells.cell import Cell

_made: dict[type[Defined], type[torch.nn.Module]] = {}


def module_class(layer: type[Defined]) -> type[Any]:
    """The class of torch's modules for the layers, or single steps, of a defined cell."""
    found = _made.get(layer)
    if found is None:
        base = DefinedCellModule if issubclass(layer, DefinedCell) else DefinedModule
        derived = layer._derived
        contents = {
            "__module__": layer.__module__,
            "__qualname__": f"{layer.__qualname__}.torch",
            "__doc__": f"{layer.__doc__}\nThis is the module of torch.\n",
            "of": layer,
            "_cell": derived.cell,
            "_mode": mode_of(layer.kind.removesuffix("Cell"), derived),
        }
        found = _made[layer] = type(layer.kind, (base,), contents)
    return found


def _blank(layer: type[Defined]) -> Any:
    """A module to be given its state: what pickles and copies begin with."""
    made: Any = module_class(layer)
    return made.__new__(made)


class _Found:
    """What both have: their class is found by that of the layer."""

    #: fastrnn's own class of the same cell
    of: ClassVar[type[Defined]]
    _cell: ClassVar[Cell]
    _mode: ClassVar[str]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if type(self) is not module_class(self.of):  # a subclass is found by its own name
            return super().__reduce_ex__(protocol)
        return _blank, (self.of,), self.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["mode"] != self._mode:
            raise ValueError(
                f"this module's cell was {state['mode']!r}, and is {self._mode!r} now: define it "
                "as it was when the module was pickled"
            )
        super().__setstate__(state)  # type: ignore[misc]


def _checked(module: Any, hx: Any, batch: tuple[int, ...], many: tuple[int, ...]) -> list[Any]:
    """The states that were given, or zeros; errors as torch's modules have them."""
    shape = [*many, *batch, module.hidden_size]
    names, states = module._cell.states, module._given(hx)
    if states is None:
        raise RuntimeError(f"hx is {_told(hx)}, wanted a tuple ({', '.join(names)})")
    if not states:
        first = next(module.parameters())
        return [first.new_zeros(shape) for _ in names]
    for n, one in enumerate(states):
        if not isinstance(one, torch.Tensor):
            raise TypeError(f"hx[{n}] is {_told(one)}, wanted a tensor")
        if one.dim() != len(shape):
            raise RuntimeError(
                f"For {'batched' if batch else 'unbatched'} input, hx should be {len(shape)}-D "
                f"but got {one.dim()}-D tensor"
            )
        if list(one.shape) != shape:
            raise RuntimeError(f"Expected hidden[{n}] size {tuple(shape)}, got {list(one.shape)}")
    return [*states]


def _told(value: Any) -> str:
    many = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{many}"


def _registered(module: Any, shapes: Shapes, device: Any, dtype: Any) -> None:
    """Give a module its parameters in the place of those that torch's class has made."""
    module._parameters.clear()
    for name, shape in shapes.items():
        empty = torch.empty(shape, device=device, dtype=dtype)
        module.register_parameter(name, torch.nn.Parameter(empty))


class _Layer(torch.nn.RNNBase):  # type: ignore[misc]
    """What stands where torch's own class does: the forward pass by its operations."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        # torch's own checks; on this device nothing is allocated, nor drawn
        sizes = input_size, hidden_size, num_layers
        how = bias, batch_first, dropout, bidirectional
        super().__init__("RNN_TANH", *sizes, *how, device="meta")
        self.mode = self._mode
        shapes, kinds = self._shapes()
        _registered(self, shapes, device, dtype)
        self._flat_weights_names = names = [*shapes]
        each = len(kinds)
        self._all_weights = [names[at : at + each] for at in range(0, len(names), each)]
        self._init_flat_weights()
        self.reset_parameters()

    def flatten_parameters(self) -> None:
        """Nothing: cuDNN does not know these parameters."""

    def forward(self, given: Any, hx: Any = None) -> Any:
        """As torch's own modules."""
        packed = isinstance(given, PackedSequence)
        self._update_flat_weights()
        how = self.bias, self.num_layers, self.dropout, self.training, self.bidirectional
        many = (self.num_layers * self._directions,)
        of = evaluated(self._mode)
        if packed:
            x, batch_sizes, order, original = given
            self.check_input(x, batch_sizes)
            rows_of(x, batch_sizes)
            sizes = batch_sizes.tolist()
            states = _checked(self, hx, (sizes[0],), many)
            if hx is not None and order is not None:
                states = [one.index_select(1, order) for one in states]
            y, final = run(of, x, sizes, states, self._flat_weights, *how)
            if original is not None:
                final = [one.index_select(1, original) for one in final]
            return PackedSequence(y, batch_sizes, order, original), as_hidden(final)
        if given.dim() not in (2, 3):
            raise ValueError(
                f"{self._get_name()}: Expected input to be 2D or 3D, got {given.dim()}D instead"
            )
        batched = given.dim() == 3
        x = given if batched else given.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x
        self.check_input(x, None)
        T, B = x.shape[:2]
        states = _checked(self, hx, (B,) if batched else (), many)
        if not batched:
            states = [one.unsqueeze(1) for one in states]
        y, final = run(of, x.flatten(0, 1), [B] * T, states, self._flat_weights, *how)
        y = y.unflatten(0, (T, B))
        if not batched:
            return y.squeeze(1), as_hidden([one.squeeze(1) for one in final])
        return y.transpose(0, 1) if self.batch_first else y, as_hidden(final)


class _Step(RNNCellBase):  # type: ignore[misc]
    """The same of a single step."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, num_chunks=1, device="meta")
        self.mode = self._mode
        _registered(self, self._shapes()[0], device, dtype)
        for name in ("bias_ih", "bias_hh"):
            if name not in self._parameters:
                self.register_parameter(name, None)
        self.reset_parameters()

    def forward(self, x: Any, hx: Any = None) -> Any:
        """As torch's own cells."""
        if x.dim() not in (1, 2):
            raise ValueError(
                f"{self._get_name()}: Expected input to be 1D or 2D, got {x.dim()}D instead"
            )
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.shape[-1]}, expected {self.input_size}"
            )
        batched = x.dim() == 2
        states = _checked(self, hx, tuple(x.shape[:1]) if batched else (), ())
        into = (None,) if batched else (None, None)
        x, states = x[into[1:]], [one[into] for one in states]
        how = self.bias, 1, 0.0, False, False
        weights: Sequence[Any] = self._weights()
        _, final = run(evaluated(self._mode), x, [len(x)], states, weights, *how)
        return as_hidden([one[0] if batched else one[0, 0] for one in final])


class DefinedModule(_Found, Layer, _Layer):
    """Layers of a cell that a program has defined, as a module of torch."""


class DefinedCellModule(_Found, CellModule, _Step):
    """One step of a cell that a program has defined, as a module of torch."""
