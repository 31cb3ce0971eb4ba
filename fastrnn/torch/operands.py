"""What an operator is given, and the shapes that follow, for real tensors and those of a trace."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from fastrnn.torch.call import DTYPES, TIME_FIRST, ModuleCall
from fastrnn.torch.checks import check, check_shape
from fastrnn.torch.devices import device_of
from fastrnn.torch.kinds import kinds_of, shapes_of_layers, widths_of
from fastrnn.torch.lengths import rows_of
from fastrnn.torch.modes import cell_of
from fastrnn.torch.packed import Packed, packed_for
from fastrnn_kernels.cache.keys import sources
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.cpu.product.panels import padded
from fastrnn_kernels.cpu.product.weights import lanes_of
from fastrnn_kernels.rows import Rows
from fastrnn_kernels.tape import ARRAYS

Tensors = list[Any]
Shape = tuple[Any, ...]  # of integers, or of symbols for them


def tapes() -> str:
    """What the sizes of tapes depend on, beside those of tensors."""
    return f"{sources()}-{lanes_of(DTYPES[torch.float32])}"


@dataclass(eq=False)
class Operands:
    """The arguments of `fastrnn::forward`, as `operators.py` describes them."""

    x: Any
    states: Tensors
    masks: Tensors
    parameters: Tensors
    batch_sizes: Any
    mode: str
    num_layers: int
    bidirectional: bool
    tapes: str = ""
    bfloat16: bool = False

    def __post_init__(self) -> None:
        # AOTInductor's packages have None for a list of no tensors.
        self.states, self.masks = list(self.states or ()), list(self.masks or ())

    @cached_property
    def tensors(self) -> Tensors:
        """All that may have a gradient, and the masks."""
        return [self.x, *self.states, *self.masks, *self.parameters]

    @cached_property
    def cell(self) -> Cell:
        """The equations."""
        return cell_of(self.mode)

    @cached_property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @cached_property
    def passes(self) -> int:
        """Directions of all layers."""
        return self.num_layers * self.directions

    @cached_property
    def possible(self) -> list[tuple[str, ...]]:
        """What kinds of parameters a direction of a layer may have, told apart by their number."""
        projections = (False,) if self.cell.reads_h else (False, True)
        return [
            kinds_of(self.cell, biased, projected)
            for projected in projections
            for biased in (False, True)
        ]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Those that it has; of another number of parameters, those of the least."""
        found = (one for one in self.possible if len(one) * self.passes == len(self.parameters))
        return next(found, self.possible[0])

    @cached_property
    def projected(self) -> bool:
        """Whether h is projected."""
        return "weight_hr" in self.kinds

    @cached_property
    def widths(self) -> tuple[int, int]:
        """P and H."""
        H = self.parameters[0].shape[0] // len(self.cell.gates)
        return (self.parameters[1].shape[1] if self.projected else H), H

    @cached_property
    def lengths(self) -> tuple[Any, Any]:
        """T and B."""
        if self.batch_sizes is None:
            return self.x.shape[0], self.x.shape[1]
        return self.batch_sizes.shape[0], self.states[0].shape[1]

    @cached_property
    def y_shape(self) -> Shape:
        """Of y and of masks."""
        return *self.x.shape[:-1], self.directions * self.widths[0]

    @cached_property
    def state_shapes(self) -> list[Shape]:
        """Of each state: h, c."""
        B, widths = self.lengths[1], widths_of(self.cell, *self.widths)
        return [(self.passes, B, width) for width in widths]

    @cached_property
    def tape_shapes(self) -> list[Shape]:
        """Of the arrays of `kept`."""
        (T, B), (P, H) = self.lengths, self.widths
        if self.x.device.type == "cpu":
            lanes = lanes_of(DTYPES[self.x.dtype])
            HL, PL = padded(H, lanes), padded(P, lanes)
        else:
            HL, PL = H, P
        shapes = {
            "x": (T, B, self.directions * P),
            "saved": (T, B, self.cell.K, HL),
            "old_h": (T, B, PL),
            "old_rest": (self.cell.N - 1, T, B, HL),
            "inner": (T, B, HL),
            "full_h": (T, B, HL),
        }
        return [shapes[name] for _, name in self.kept]

    @cached_property
    def kept(self) -> tuple[tuple[int, str], ...]:
        """By pass and name, the arrays of tapes that are outputs of an operator.

        Those may not share memory with its inputs, nor with each other: so the input of the first
        layer is not among them, and that of another is once for both directions.
        """
        of_pass = ["saved", "old_h"]
        of_pass += ["old_rest"] if self.cell.N > 1 else []
        of_pass += ["inner"] if self.cell.L else []
        of_pass += ["full_h"] if self.projected else []
        D = self.directions
        return tuple(
            (k, name)
            for k in range(self.passes)
            for name in (["x", *of_pass] if k >= D and k % D == 0 else of_pass)
        )

    def call(self) -> ModuleCall:
        """What runs it, once all has been checked: RuntimeError for what does not fit."""
        device, missing = device_of(self.x)
        if device is None:
            raise RuntimeError(missing)
        check(self)
        key = self._sizes()
        packed = packed_for(self.parameters, key, lambda: shapes_of_layers(*key))
        return self._call(packed, device, self._rows())

    def call_of_torch(self) -> ModuleCall:
        """What torch's own kernels run."""
        shapes = {str(k): tuple(one.shape) for k, one in enumerate(self.parameters)}
        packed = Packed(self.cell, shapes, self.kinds)
        rows = None if self.batch_sizes is None else self._rows()
        return self._call(packed, None, rows)

    def _sizes(self) -> tuple[Any, ...]:
        P, H = self.widths
        I = self.x.shape[-1]
        return self.cell, self.kinds, self.num_layers, self.directions, I, H, P

    def _call(self, packed: Packed, device: Any, rows: Any) -> ModuleCall:
        P, H = self.widths
        return ModuleCall(
            self.mode, self.num_layers, self.directions, H, P, len(self.masks),
            len(self.states), TIME_FIRST, rows, self.batch_sizes, packed, device,
            bfloat16=self.bfloat16,
        )  # fmt: skip

    def _rows(self) -> Rows:
        T, B = self.lengths
        if self.batch_sizes is None:
            return Rows.whole(T, B)
        rows = rows_of(self.x, self.batch_sizes)
        if rows.B != B:
            raise RuntimeError(f"states are of B={B} rows, batch_sizes of {rows.B}")
        return rows

    def taken(self, tape: Tensors, call: ModuleCall) -> Tensors:
        """All arrays of the tapes of all passes, from those of `kept`."""
        for (_, name), tensor, shape in zip(self.kept, tape, self.tape_shapes, strict=True):
            check_shape(f"{name} of the tape", tensor, shape)
        T, B = self.lengths
        none = self.x.new_empty((0, 0, 0))
        missing = {"inner": none, "full_h": none, "old_rest": none.new_empty((0, T, B, 0))}
        with call.device.on_current_stream():
            padded = self.batch_sizes is None
            x = self.x.contiguous() if padded else call.device.tensor(call.enter(self.x))
        every = []
        for k in range(self.passes):
            own = {name: t for (at, name), t in zip(self.kept, tape, strict=True) if at == k}
            own = {name: tensor.contiguous() for name, tensor in own.items()}
            of_pass = {"x": x, **missing, **own}
            x = of_pass["x"]
            every += [of_pass[name] for name in ARRAYS]
        return every

    def spread(self, d_results: Tensors, there: list[bool]) -> Tensors:
        """Gradients of y and the final states, None for those that are not there."""
        shapes = [self.y_shape, *self.state_shapes]
        given = iter(d_results)
        if len(there) != len(shapes) or sum(there) != len(d_results):
            raise RuntimeError(f"{len(d_results)} gradients for results {list(there)}")
        found = [next(given) if one else None for one in there]
        for gradient, shape in zip(found, shapes, strict=True):
            if gradient is not None:
                check_shape("a gradient", gradient, shape)
        return found
