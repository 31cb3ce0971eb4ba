"""What a stack of layers of one cell is: its arguments, parameters, weights and states."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from fastrnn import check
from fastrnn.arrays import Array, Shape
from fastrnn.models import regularised
from fastrnn.models.module import Version
from fastrnn.models.recurrent import Recurrent
from fastrnn.models.stack import Stack
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.device import Device as Kernels
from fastrnn_kernels.weights import Weights


class Stacked(Recurrent):
    """The arguments of a stack of recurrent layers, and what follows from them."""

    proj_size: int = 0
    input_dropout: float
    recurrent_dropout: float
    recurrent_dropout_on: str
    zoneout: float | tuple[float, ...]
    weight_dropout: float

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        initial_state: str = "zeros",
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "h",
        zoneout: float | Sequence[float] = 0.0,
        weight_dropout: float = 0.0,
        blocks: int = 1,
        norm: str | None = None,
        device: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
        **options: Any,
    ) -> None:
        self._configure(
            input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, bias=bias,
            batch_first=batch_first, dropout=dropout, bidirectional=bidirectional,
            initial_state=initial_state, input_dropout=input_dropout,
            recurrent_dropout=recurrent_dropout, recurrent_dropout_on=recurrent_dropout_on,
            zoneout=zoneout, weight_dropout=weight_dropout, blocks=blocks, norm=norm,
            device=device, dtype=dtype,
            **self._with_usual(options),
        )  # fmt: skip
        self._draw(seed)

    @classmethod
    def _choices(cls) -> dict[str, Any]:
        return {**super()._choices(), **regularised.ARGUMENTS}

    @staticmethod
    def _checked_choice(name: str, value: Any) -> Any:
        if name in regularised.ARGUMENTS:
            return regularised.checked(name, value)
        return Recurrent._checked_choice(name, value)

    def _configure(self, *args: Any, **config: Any) -> None:
        self._set_up_stack(**self._take_options(config))

    def _set_up_stack(
        self,
        *,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: str,
        dtype: Any,
    ) -> None:
        """Check the arguments and fix the shapes of the parameters; draw nothing."""
        self.input_size = check.size("input_size", input_size)
        self.hidden_size = check.size("hidden_size", hidden_size)
        self.num_layers = check.size("num_layers", num_layers, most=10_000)
        self.bias = check.flag("bias", bias)
        self.batch_first = check.flag("batch_first", batch_first)
        self.dropout = check.probability("dropout", dropout)
        self.bidirectional = check.flag("bidirectional", bidirectional)
        given = {name: getattr(self, name) for name in regularised.ARGUMENTS}
        sizes = self.kind, self._owner, self.proj_size
        self._rates = regularised.Rates.of(given, self._cell, *sizes)
        if self._rates.derived:
            self._equations  # noqa: B018  (raises where there are none)
        self._set_up(device, dtype)
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"dropout stands between layers, so dropout={dropout} does nothing with one layer",
                UserWarning,
                stacklevel=4,
            )
        G, GH, H, P = self._cell.G, self._cell.GH, self.hidden_size, self.state_size
        read = self._block
        self._shapes = {}
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.directions * P
            for suffix in self._suffixes(layer):
                self._shapes[f"weight_ih{suffix}"] = (G * H, width)
                if GH:
                    self._shapes[f"weight_hh{suffix}"] = (GH * H, read)
                if self.bias:
                    self._shapes[f"bias_ih{suffix}"] = (G * H,)
                if self.bias and GH:
                    self._shapes[f"bias_hh{suffix}"] = (GH * H,)
                if self.proj_size:
                    self._shapes[f"weight_hr{suffix}"] = (P, H)
                for name in self._cell.per_unit:
                    self._shapes[f"{name}{suffix}"] = (H,)
                self._shapes |= self._norm_shapes(suffix)
                self._shapes |= self._start_shapes(suffix)

    @property
    def directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """P: the width of h."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        """D * P: the width of y."""
        return self.directions * self.state_size

    @cached_property
    def _stack(self) -> Stack:
        return Stack(self._owner, self.num_layers, self.directions, self.state_size, self.dtype)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]

    @property
    def _every_suffix(self) -> list[str]:
        return [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]

    @cached_property
    def _expected_cell(self) -> Cell:
        """The cell for inference, in which zoneout stands with its rates."""
        states = self._rates.states
        if not states:
            return self._cell
        # Of equations, which take a while to import, and which few layers need.
        from fastrnn_kernels.equations.regularised import expected

        return expected(self._equations, states)

    @cached_property
    def _training_cell(self) -> Cell:
        """The cell for training, with what is drawn."""
        states, candidate = self._rates.states, self._rates.candidate
        if not states and candidate is None:
            return self._cell
        from fastrnn_kernels.equations.regularised import training

        return training(self._equations, states, candidate)

    def _make_weights(
        self, kernels: Kernels, values: Mapping[str, Array], compute: str
    ) -> tuple[Weights, ...]:
        return self._weights_of(self._expected_cell, kernels, values, compute)

    def _training_weights(self, version: Version, kernels: Kernels) -> tuple[Weights, ...]:
        """A version's weights for calls in training."""
        if self._training_cell is self._expected_cell:
            return self._weights_for(version, kernels)
        key = kernels, "training"
        if key not in version.others:
            cell, values = self._training_cell, version.values
            version.others[key] = self._weights_of(cell, kernels, values, self.compute)
        return version.others[key]

    def _weights_of(
        self, cell: Cell, kernels: Kernels, values: Mapping[str, Array], compute: str
    ) -> tuple[Weights, ...]:
        found = tuple(
            kernels.Weights(
                self._cell,
                values[f"weight_ih{suffix}"],
                values.get(f"weight_hh{suffix}", np.empty((0, self.state_size), self.dtype)),
                values.get(f"bias_ih{suffix}"),
                values.get(f"bias_hh{suffix}"),
                values.get(f"weight_hr{suffix}"),
                compute,
                self._units(values, suffix),
                blocks=self.blocks,
                **self._norm_of(values, suffix),
            )
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
        )
        if cell is self._cell:
            return found
        rates = self._rates.units(self.hidden_size, self.dtype)
        return tuple(regularised.with_rates(cell, one, rates) for one in found)

    def _checked_states(
        self, name: str, given: Any, B: int, batched: bool, models: int | None = None
    ) -> list[Array] | None:
        """The states as they were given, each of the right type and shape; None for zeros.

        models: how many models they are of, in a first axis, if there is one.
        """
        if given is None:
            return None
        letters, wanted = self._cell.states, self._state_shapes(B)
        axes: list[str] = [] if models is None else ["models"]
        axes += ["num_layers * directions", *["B"] * batched, "width"]
        lead = () if models is None else (models,)
        batch = (B,) if batched else ()
        shapes: list[Shape] = [(*lead, many, *batch, width) for many, _, width in wanted]
        told = f"({', '.join(axes)})"
        return check.states(name, given, letters, shapes, told, self.dtype, self._owner)

    def _states(
        self,
        kernels: Kernels,
        name: str,
        given: list[Array] | None,
        B: int,
        values: Mapping[str, Array] | None = None,
    ) -> tuple[Array, ...]:
        """Checked states as (num_layers * D, B, width) each; if there are none, as they begin.

        values: the parameters, of states; gradients begin from zeros.
        """
        shapes = self._state_shapes(B)
        if given is None and values is not None and self._learned:
            return self._begun(kernels, values, self._every_suffix, B)
        if given is None:
            return tuple(kernels.xp.zeros(shape, self.dtype) for shape in shapes)
        pairs = zip(given, shapes, strict=True)
        return tuple(kernels.take(state.reshape(shape), name) for state, shape in pairs)

    def _state_shapes(self, B: int) -> list[tuple[int, int, int]]:
        """(num_layers * D, B, width) of each state: P of h, H of the others."""
        many, others = self.num_layers * self.directions, len(self._cell.states) - 1
        return [(many, B, width) for width in (self.state_size, *[self.hidden_size] * others)]
