"""The parameters of a layer or cell: what kinds there are, their order and their shapes."""

from fastrnn_kernels.cells.cell import Cell

#: What kernels call them; those of each unit are one array there, `units`.
SHORT = {
    "weight_ih": "w_ih",
    "weight_hh": "w_hh",
    "bias_ih": "b_ih",
    "bias_hh": "b_hh",
    "weight_hr": "w_hr",
}
Shapes = dict[str, tuple[int, ...]]


def kinds_of(cell: Cell, biased: bool, projected: bool) -> tuple[str, ...]:
    """The parameters of one direction of a layer, in torch's order, those of each unit last."""
    recurrent = ["weight_hh"] if cell.GH else []
    kinds = ["weight_ih", *recurrent]
    if biased:
        kinds += ["bias_ih", *(["bias_hh"] if recurrent else [])]
    if projected:
        kinds.append("weight_hr")
    return *kinds, *cell.per_unit


def shapes_of(
    cell: Cell, kinds: tuple[str, ...], input_size: int, hidden_size: int, state_size: int,
    suffix: str = "",
) -> Shapes:  # fmt: skip
    """The shapes of the parameters of one direction of a layer, or of a single step, by name."""
    H, P = hidden_size, state_size
    rows, rows_of_h = cell.G * H, cell.GH * H
    shapes: Shapes = {
        "weight_ih": (rows, input_size),
        "weight_hh": (rows_of_h, P),
        "bias_ih": (rows,),
        "bias_hh": (rows_of_h,),
        "weight_hr": (P, H),
    }
    return {f"{kind}{suffix}": shapes.get(kind, (H,)) for kind in kinds}


def shapes_of_layers(
    cell: Cell, kinds: tuple[str, ...], num_layers: int, directions: int, input_size: int,
    hidden_size: int, state_size: int,
) -> Shapes:  # fmt: skip
    """The shapes of the parameters of all layers, layer-major, then direction."""
    shapes: Shapes = {}
    for k in range(num_layers):
        width = directions * state_size if k else input_size
        for direction in ("", "_reverse")[:directions]:
            sizes = width, hidden_size, state_size
            shapes |= shapes_of(cell, kinds, *sizes, f"_l{k}{direction}")
    return shapes


def widths_of(cell: Cell, state_size: int, hidden_size: int) -> list[int]:
    """The width of each state: P of h, H of the others."""
    return [state_size, *[hidden_size] * (cell.N - 1)]
