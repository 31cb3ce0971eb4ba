"""What layers and cells share: the forward pass of a torch module, on fastrnn's kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Proxy

from fastrnn.torch.fallbacks import autocasts, castable, same_kind
from fastrnn.torch.graph import differentiated, is_exporting
from fastrnn.torch.kinds import Shapes
from fastrnn.torch.modes import cell_of
from fastrnn.torch.outside import outside_of_graphs
from fastrnn.torch.script import Form as FormOfScript
from fastrnn.torch.script import Overloads, prepared
from fastrnn.torch.small import Form
from fastrnn_kernels.cells.cell import Cell


@outside_of_graphs
def _call_outside_of_graphs(module: Any, given: Any, hx: Any) -> Any:
    if hx is None:
        hx = module._begin(given)
    found = module._run(given, hx)
    if found is not NotImplemented:
        return found
    found = module._own_forward(given, hx)  # which raises torch's own errors
    if module._regularised:
        raise _not_by_torch(module)
    return found


def _not_by_torch(module: Any) -> Exception:
    return NotImplementedError(
        f"this {module._get_name()} has zoneout or dropout inside of its layers, and this call is "
        "one of those that torch's own kernels run (fastrnn.torch.FALLBACKS), which have none"
    )


class Module(torch.nn.Module):  # type: ignore[misc]
    """Goes before torch's own class; adds nothing to its objects, so that classes may be swapped.

    Where `_run` gives NotImplemented, torch's own forward does what is left: it runs if the case
    is on the list of fallbacks, and raises its own error if arguments do not fit.
    """

    #: what states begin from; layers may learn it (`options.py`)
    initial_state: str = "zeros"

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        """A call with its hooks; in a graph of torch.fx, one node, as of torch's own modules.

        Tracers look into modules that are not of torch's packages.
        """
        given = args[0] if args else kwargs.get("input")
        if isinstance(given, Proxy):
            tracer = given.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)
        return super()._call_impl(*args, **kwargs)

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  (torch's name)
        """As torch's."""
        if torch.compiler.is_compiling():
            return self._traced(input, hx)
        return _call_outside_of_graphs(self, input, hx)

    def _traced(self, given: Any, hx: Any) -> Any:
        exporting, inside = is_exporting(), not differentiated()
        if exporting:
            self._refuse_clip("this is exported")
        if self._regularised and exporting:  # no operator has it
            raise _not_by_torch(self)
        if self._regularised or (self._trains_otherwise() and not exporting):
            return _call_outside_of_graphs(self, given, hx)
        if exporting and torch.onnx.is_in_onnx_export():
            inside = False
        begun = self._begin(given) if hx is None and inside else hx
        found = self._in_graph(given, begun) if inside else NotImplemented
        if found is not NotImplemented:
            return found
        if not exporting and (not inside or self._breaks()):
            return _call_outside_of_graphs(self, given, hx)
        return super().forward(given, self._begin(given) if hx is None else hx)

    def _own_forward(self, given: Any, hx: Any) -> Any:
        return super().forward(given, hx)

    def _begin(self, given: Any) -> Any:
        """The initial states of a call that is given none; None for zeros."""
        return None

    def _trains_otherwise(self) -> bool:
        """Whether a training step is none that graphs have an operator for."""
        return False

    def _refuse_clip(self, where: str) -> None:
        """Raise RuntimeError where gradients are to be clipped between steps, and cannot be."""

    @staticmethod
    def _breaks() -> bool:
        """Whether torch.compile breaks its graph at torch's own module."""
        return False

    def _in_graph(self, given: Any, hx: Any) -> Any:
        """The same as `_run`, where a graph is made."""
        raise NotImplementedError

    def _run(self, given: Any, hx: Any) -> Any:
        """The results, or NotImplemented."""
        raise NotImplementedError

    def _how(self) -> Any:
        """What a call depends on beside its arguments, the parameters and the equations."""
        return ()

    def _form(self, x: Any, states: Any) -> Form | None:
        """Of a call that may be prepared, if its arrays lie as kernels have them."""
        raise NotImplementedError

    @property
    def _regularised(self) -> bool:
        """Whether it has zoneout, or dropout inside of its layers."""
        return False

    @property
    def _mode(self) -> str:
        """torch's name of the cell."""
        raise NotImplementedError

    @property
    def _cell(self) -> Cell:
        return cell_of(self._mode)

    def _shapes(self) -> tuple[Shapes, tuple[str, ...]]:
        """Shapes of the parameters by name, and the kinds that each direction of a layer has."""
        raise NotImplementedError

    def _given(self, hx: Any) -> Sequence[Any] | None:
        """The initial states, none of them if zeros are meant, or None if there are too few."""
        if hx is None:
            return ()
        many = len(self._cell.states)
        if many == 1:
            return (hx,)
        return hx if isinstance(hx, tuple | list) and len(hx) == many else None

    # What TorchScript looks at (`script.py`).
    __overloads__ = Overloads()
    forward__0, forward__1 = FormOfScript(0), FormOfScript(1)
    __jit_unused_properties__ = (
        "_cell", "_clip", "_directions", "_dropout", "_mode", "_regularised", "_state_size",
        "_suffixes", "_widths",
        "all_weights",
    )  # fmt: skip

    def __prepare_scriptable__(self) -> Any:
        """TorchScript compiles torch's own forward, with these parameters."""
        if self._regularised:
            raise _not_by_torch(self)
        return prepared(self)


def alike(weights: Sequence[Any], x: Any, states: Sequence[Any]) -> bool:
    """Whether all are tensors of one float type on one device, laid out in memory.

    Under autocast they may be of several types. Raises RuntimeError if only a state is of another
    kind: torch's kernels for packed sequences do not look, and end the process.
    """
    first = weights[0]
    if not isinstance(first, torch.Tensor):
        return False
    if same_kind(first, (*weights, x, *states)):
        return True
    if autocasts(first):
        return castable(first, (*weights, x, *states))
    if not same_kind(first, (*weights, x)):
        return False
    for state in states:
        if isinstance(state, torch.Tensor) and not same_kind(first, (state,)):
            raise RuntimeError(
                f"initial state is {state.dtype}, {state.layout} on {state.device}, this module "
                f"takes {first.dtype}, {first.layout} on {first.device}"
            )
    return False
