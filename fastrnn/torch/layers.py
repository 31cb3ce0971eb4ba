"""The layers: torch's own modules, whose sequences run on fastrnn's kernels."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from fastrnn import check
from fastrnn.torch.call import BATCH_FIRST, TIME_FIRST, UNBATCHED, Layout, ModuleCall
from fastrnn.torch.devices import device_of
from fastrnn.torch.fallbacks import FLOATS, falls_back
from fastrnn.torch.graph import as_hidden, breaks, layer
from fastrnn.torch.kinds import Shapes, kinds_of, shapes_of_layers, widths_of
from fastrnn.torch.lengths import rows_of
from fastrnn.torch.modes import equations_of
from fastrnn.torch.module import alike
from fastrnn.torch.options import Options
from fastrnn.torch.packed import packed_of
from fastrnn.torch.precision import run, small
from fastrnn.torch.regularised import NONE, Own, masked, own_of, rates_of, taken, told
from fastrnn.torch.small import Form
from fastrnn.torch.types import LayerCall, Pair
from fastrnn_kernels.rows import Rows


class Layer(Options):
    """What a layer does in torch's place."""

    _breaks = staticmethod(breaks)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        own = taken(options)
        super().__init__(*arguments, **options)
        if own:
            self.__dict__.update(own)
            if rates_of(self).derived:
                equations_of(self._mode)  # raises where there are none

    def extra_repr(self) -> str:
        """As torch's."""
        of_torch: str = super().extra_repr()
        return ", ".join([of_torch, *(f"{n}={value}" for n, value in told(self).items())])

    @property
    def _regularised(self) -> bool:
        return bool(told(self))

    @property
    def _mode(self) -> str:
        mode: str = self.mode
        return mode

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _state_size(self) -> int:
        size: int = self.proj_size or self.hidden_size
        return size

    @property
    def _widths(self) -> list[int]:
        return widths_of(self._cell, self._state_size, self.hidden_size)

    def _shapes(self) -> tuple[Shapes, tuple[str, ...]]:
        kinds = kinds_of(self._cell, self.bias, self.proj_size > 0)
        sizes = self.input_size, self.hidden_size, self._state_size
        many = self.num_layers, self._directions
        return shapes_of_layers(self._cell, kinds, *many, *sizes), kinds

    def _how(self) -> Any:
        return self._dropout, self.batch_first, self._regularised

    def _form(self, x: Any, states: Any) -> Form | None:
        batched = x.dim() == 3
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size or self._dropout:
            return None
        if self._regularised:
            return None
        first = batched and self.batch_first
        T, B = (x.shape[first], x.shape[not first]) if batched else (len(x), 1)
        if first and T > 1 and B > 1:
            return None
        D, P = self._directions, self._state_size
        batch = (B,) if batched else ()
        shapes = [(self.num_layers * D, *batch, width) for width in self._widths]
        if states and [*map(tuple, (one.shape for one in states))] != shapes:
            return None
        return Form(T, B, D, (*x.shape[:-1], D * P), shapes)

    def _run(self, given: Any, hx: Any) -> Any:
        states = self._given(hx)
        found = small(self, given, states)
        if found is not None:
            y, *final = found
            return y, as_hidden(final)
        weights = self._weights()
        packed = isinstance(given, PackedSequence)
        x, layout = given.data if packed else given, TIME_FIRST
        if states is None or not alike(weights, x, states):
            return NotImplemented
        if packed:
            self.check_input(x, given.batch_sizes)  # torch's LSTM does not look
            rows = rows_of(x, given.batch_sizes)
            T, B = rows.T, rows.B
        elif x.dim() == 3:
            layout = BATCH_FIRST if self.batch_first else TIME_FIRST
            T, B = x.shape[self.batch_first], x.shape[not self.batch_first]
        elif x.dim() == 2:
            layout, T, B = UNBATCHED, len(x), 1
        else:
            return NotImplemented
        many, batch = self.num_layers * self._directions, () if layout is UNBATCHED else (B,)
        shapes = [(many, *batch, width) for width in self._widths]
        fitting = all(one.shape == shape for one, shape in zip(states, shapes, strict=False))
        if packed and not fitting:
            self.check_forward_args(x, hx, given.batch_sizes)
        if not fitting or x.shape[-1] != self.input_size or T == 0:
            return NotImplemented
        if falls_back((*weights, x, *states)):
            return NotImplemented
        if packed:
            return self._run_packed(given, states, rows, weights)
        masks = self._masks(x, (T, B))
        y, *final = self._run_rows(x, states, layout, Rows.whole(T, B), None, masks, weights)
        return y, as_hidden(final)

    def _run_packed(self, given: Any, states: Any, rows: Rows, weights: Any) -> Any:
        x, batch_sizes, order, original = given
        if order is not None:
            states = [one.index_select(1, order) for one in states]
        masks = self._masks(x, x.shape[:1])
        y, *final = self._run_rows(x, states, TIME_FIRST, rows, batch_sizes, masks, weights)
        if original is not None:
            final = [one.index_select(1, original) for one in final]
        return PackedSequence(y, batch_sizes, order, original), as_hidden(final)

    def _run_rows(
        self, x: Any, states: Any, layout: Layout, rows: Rows, sizes: Any, masks: Any, weights: Any
    ) -> Any:
        own = own_of(self, x.dtype) if self._regularised else NONE
        if own.drawn is not None:
            if not x.is_cpu:
                raise ValueError(
                    f"this {self._get_name()} has zoneout or dropout inside of its layers, which "
                    f"trains on the CPU, and its input is on {x.device}: wanted the CPU, or eval()"
                )
            given = x, weights, masks, rows, layout, sizes is not None
            x, masks, weights = masked(self, own.drawn, *given)
        call = self._call(x, states, layout, rows, sizes, len(masks), own)
        return run(call, (x, *states, *masks, *weights))

    def _weights(self) -> list[Any]:
        parameters = self._parameters
        try:
            return [parameters[name] for name in self._flat_weights_names]
        except KeyError:  # parametrised, or a replica; torch looks at each, which takes longer
            self._update_flat_weights()
            weights: list[Any] = self._flat_weights
            return weights

    def _in_graph(self, given: Any, hx: Any) -> Any:
        return layer(self, given, hx)

    def _call(
        self, x: Any, states: Any, layout: Layout, rows: Rows, sizes: Any, masks: int, own: Own
    ) -> ModuleCall:
        device, _ = device_of(x)
        assert device is not None  # else the call had fallen back
        if self._trains_otherwise() and not device.kernels.ON_HOST:
            raise ValueError("checkpoint, clip_value and clip_norm are for calls on the CPU")
        return ModuleCall(
            self._mode, self.num_layers, self._directions, self.hidden_size, self._state_size,
            masks, len(states), layout, rows, sizes, packed_of(self), device,
            drawn=own.drawn, cell=own.cell, rates=own.rates,
            every=check.checkpoint(self.checkpoint, rows.T, rows.B), clip=self._clip,
        )  # fmt: skip

    @property
    def _dropout(self) -> float:
        between = self.training and self.num_layers > 1
        return float(self.dropout) if between else 0.0

    def _masks(self, x: Any, steps: Any) -> list[Any]:
        """Dropout's, drawn in torch's order from torch's generator, so a seed gives the same.

        It does in any type; in that of kernels what is left is scaled exactly.
        """
        if not self._dropout:
            return []
        width = self._directions * self._state_size
        dtype = x.dtype if x.dtype in FLOATS else torch.float32
        ones = torch.ones(*steps, width, dtype=dtype, device=x.device)
        return [dropout(ones, self._dropout) for _ in range(self.num_layers - 1)]


class RNN(Layer, torch.nn.RNN):  # type: ignore[misc]
    """`torch.nn.RNN` on fastrnn's kernels: arguments, parameters and errors are torch's.

    Beside them it takes those of `fastrnn.torch.options.Options`.
    """

    if TYPE_CHECKING:
        __call__: LayerCall[Tensor]


class LSTM(Layer, torch.nn.LSTM):  # type: ignore[misc]
    """`torch.nn.LSTM` on fastrnn's kernels: arguments, parameters and errors are torch's.

    Beside them it takes those of `fastrnn.torch.options.Options`.
    """

    if TYPE_CHECKING:
        __call__: LayerCall[Pair]


class GRU(Layer, torch.nn.GRU):  # type: ignore[misc]
    """`torch.nn.GRU` on fastrnn's kernels: arguments, parameters and errors are torch's.

    Beside them it takes those of `fastrnn.torch.options.Options`.
    """

    if TYPE_CHECKING:
        __call__: LayerCall[Tensor]
