"""fastrnn's passes as operators of torch's, which compiled and exported programs are made of.

    fastrnn::forward    x, states, masks, parameters -> y, final states
    fastrnn::record     the same -> y, final states, tape
    fastrnn::backward   gradients of y and the final states, the tape, the same -> their gradients;
                        without `inputs` that of x is empty

x and y are time first, (T, B, width), or a PackedSequence's data, beside its batch_sizes; states
(layers * D, B, width) each, none for zeros, which packed data cannot do without; masks, of dropout,
laid out as y, in front of each layer but the first; parameters in torch's order. All tensors are
float32 or float64, beside float32 parameters may be bfloat16 or float16, and have gradients of
their type. With `bfloat16` the forward pass may compute products in it, where the CPU has them and
no gradient is wanted. All sizes are those of the tensors. Those of a tape depend on the processor,
so it is only where gradients are; tapes, which nobody reads, tells caches of compiled graphs apart
that have other tapes.
The first has derivatives, of which the others are made; they themselves have none.
"""

from collections.abc import Sequence
from typing import Any

import torch

from fastrnn.torch import derivatives
from fastrnn.torch.operands import Operands, Tensors
from fastrnn.torch.outside import outside_of_graphs
from fastrnn_kernels.tape import ARRAYS

_GIVEN = (
    "Tensor x, Tensor[] states, Tensor[] masks, Tensor[] parameters, Tensor? batch_sizes, "
    "str mode, int num_layers, bool bidirectional, str tapes='', bool bfloat16=False"
)
_SCHEMAS = {
    "forward": f"({_GIVEN}) -> (Tensor y, Tensor[] final)",
    "record": f"({_GIVEN}) -> (Tensor y, Tensor[] final, Tensor[] tape)",
    "backward": f"(Tensor[] d_results, bool[] there, bool inputs, Tensor[] tape, {_GIVEN}) "
    "-> (Tensor dx, Tensor[] d_states, Tensor[] d_parameters)",
}


def _forward(*given: Any) -> tuple[Any, Tensors]:
    operands = Operands(*given)
    y, *final = operands.call().forward(operands.tensors, taping=False)
    return y, final


def _record(*given: Any) -> tuple[Any, Tensors, Tensors]:
    operands = Operands(*given)
    found = operands.call().forward(operands.tensors, taping=True)
    results = 1 + len(operands.cell.states)
    y, *final = found[:results]
    places = [results + k * len(ARRAYS) + ARRAYS.index(name) for k, name in operands.kept]
    return y, final, [found[place] for place in places]


def _backward(
    d_results: Tensors, there: list[bool], inputs: bool, tape: Tensors, *given: Any
) -> tuple[Any, ...]:
    operands = Operands(*given)
    call = operands.call()
    tensors = [*operands.tensors, *operands.taken(tape, call)]
    dx, *rest = call.backward(operands.spread(d_results, there), tensors, inputs)
    if dx is None:
        dx = operands.x.new_empty(0)
    states = len(operands.states)
    return dx, rest[:states], rest[states + len(operands.masks) :]


def _forward_of_trace(*given: Any) -> tuple[Any, Tensors]:
    operands = Operands(*given)
    make = operands.x.new_empty
    return make(operands.y_shape), [make(shape) for shape in operands.state_shapes]


def _record_of_trace(*given: Any) -> tuple[Any, Tensors, Tensors]:
    operands = Operands(*given)
    tape = [operands.x.new_empty(shape) for shape in operands.tape_shapes]
    return *_forward_of_trace(*given), tape


def _backward_of_trace(
    d_results: Tensors, there: list[bool], inputs: bool, tape: Tensors, *given: Any
) -> tuple[Any, ...]:
    operands = Operands(*given)
    parts = operands.states, operands.parameters
    return operands.x.new_empty(operands.x.shape if inputs else 0), *(
        [one.new_empty(one.shape) for one in part] for part in parts
    )


def _row(given: Any, dim: Any, k: int) -> Any:
    """Of what is mapped over, the k-th."""
    if isinstance(given, list | tuple):
        return [_row(one, of_one, k) for one, of_one in zip(given, dim, strict=True)]
    return given if dim is None else given.select(dim, k)


def _mapped(operator: Any) -> Any:
    """Under vmap, one after the other: the parameters may differ as well."""

    def mapped(info: Any, dims: Sequence[Any], *given: Any) -> tuple[Any, Any]:
        rows = [operator(*map(_row, given, dims, [k] * len(given))) for k in range(info.batch_size)]
        stacked = tuple(
            torch.stack(part)
            if isinstance(part[0], torch.Tensor)
            else list(map(torch.stack, zip(*part, strict=True)))
            for part in zip(*rows, strict=True)
        )
        return stacked, tuple([0] * len(p) if isinstance(p, list) else 0 for p in stacked)

    return mapped


def _defined() -> torch.library.Library:
    library = torch.library.Library("fastrnn", "DEF")
    kernels = {
        "forward": (_forward, _forward_of_trace),
        "record": (_record, _record_of_trace),
        "backward": (_backward, _backward_of_trace),
    }
    tags = [
        getattr(torch.Tag, name)
        for name in ("pt2_compliant_tag", "needs_exact_strides", "cudagraph_unsafe")
        if hasattr(torch.Tag, name)
    ]
    for name, (real, fake) in kernels.items():
        library.define(f"{name}{_SCHEMAS[name]}", tags=tags)
        for key in ("CPU", "CUDA"):
            library.impl(name, outside_of_graphs(real), key)
        torch.library.register_fake(f"fastrnn::{name}", fake, lib=library)
        if hasattr(torch.library, "register_vmap"):  # torch has it since 2.5
            mapped = _mapped(getattr(torch.ops.fastrnn, name).default)
            torch.library.register_vmap(f"fastrnn::{name}", mapped, lib=library)
    derivatives.register(library)
    return library


#: The operators are there for as long as this is.
LIBRARY = _defined()
