"""Dropout inside of torch's layers, and zoneout: their arguments, and what a call draws."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fastrnn.arrays import Array
from fastrnn.models.regularised import ARGUMENTS, Drawn, Rates, checked
from fastrnn.torch.call import BATCH_FIRST, DTYPES, UNBATCHED, Layout
from fastrnn.torch.modes import equations_of
from fastrnn_kernels.cells.cell import Cell
from fastrnn_kernels.equations.regularised import expected, training
from fastrnn_kernels.rows import Rows


class Own(NamedTuple):
    """What a call has of its module's arguments.

    drawn: in training. cell, rates: one that is derived from the module's, and its rates.
    """

    drawn: Drawn | None
    cell: Cell | None
    rates: Array | None


#: Of modules without these arguments.
NONE = Own(None, None, None)


def taken(options: dict[str, Any]) -> dict[str, Any]:
    """Take these arguments out of a module's, checked; those that are as usual are left out."""
    found = {name: checked(name, options.pop(name)) for name in ARGUMENTS if name in options}
    return {name: value for name, value in found.items() if value != ARGUMENTS[name]}


def told(module: Any) -> Mapping[str, Any]:
    """Those of a module that are not as usual."""
    own = vars(module)
    return {name: own[name] for name in ARGUMENTS if name in own}


def rates_of(module: Any) -> Rates:
    """The rates of a module; raises ValueError for what its cell has not."""
    given = {**ARGUMENTS, **told(module)}
    kind = module._mode.partition("-")[0]
    owner = f"this {module._get_name()}"
    return Rates.of(given, module._cell, kind, owner, module.proj_size)


def own_of(module: Any, dtype: Any) -> Own:
    """What a call of a module has of them; it draws a key from torch's generator, in training."""
    rates, drawn, cell = rates_of(module), None, None
    if module.training and rates.drawing:
        drawn = Drawn(rates, int(torch.randint(2**63 - 1, (1,))))
        if rates.derived:
            cell = training(equations_of(module._mode), rates.states, rates.candidate)
    elif rates.zoneout:
        cell = expected(equations_of(module._mode), rates.states)
    numpy = DTYPES.get(dtype, np.dtype(np.float32))
    return Own(drawn, cell, rates.units(module.hidden_size, numpy))


def masked(
    module: Any, drawn: Drawn, x: Any, weights: Sequence[Any], masks: Sequence[Any], rows: Rows,
    layout: Layout, packed: bool,
) -> tuple[Any, list[Any], list[Any]]:  # fmt: skip
    """x, the masks in front of the layers above, and the parameters, of what is left of them."""
    D, B, inputs = module._directions, rows.B, drawn.rates.input
    masks, weights = [*masks], [*weights]
    dtype = DTYPES.get(x.dtype, np.dtype(np.float32))
    for k in range(module.num_layers if inputs else 0):
        width = D * module._state_size if k else module.input_size
        mask = _like(drawn.inputs(k * D, B, width, dtype), x)
        if packed:
            mask = mask[0][torch.from_numpy(rows.running % B).to(x.device)]
        if k == 0:
            # Above, tensors are time first and have an axis of rows.
            if layout is BATCH_FIRST:
                mask = mask.transpose(0, 1)
            x = x * (mask[:, 0] if layout is UNBATCHED else mask)
        elif masks[k - 1 :]:
            masks[k - 1] = masks[k - 1] * mask
        else:
            masks.append(mask if packed else mask.expand(rows.T, B, width).contiguous())
    kinds = module._shapes()[1]
    for n in range(module.num_layers * D if drawn.rates.weight else 0):
        at = n * len(kinds) + kinds.index("weight_hh")
        shape = tuple(weights[at].shape)
        weights[at] = weights[at] * _like(drawn.left_of_weights(n, shape, dtype), weights[at])
    return x, masks, weights


def _like(mask: Array | None, tensor: Any) -> Any:
    assert mask is not None
    return torch.from_numpy(mask).to(tensor.device, tensor.dtype)
