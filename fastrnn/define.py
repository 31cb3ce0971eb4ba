"""Cells of one's own: `@fastrnn.cell` makes a class of layers of a function of equations."""

import sys
from collections.abc import Callable, Sequence
from keyword import iskeyword
from typing import Any

from fastrnn.models.defined import Defined, DefinedCell, DefinedLayer
from fastrnn.models.recurrent import CLASSES
from fastrnn_kernels.cells.cell import PARAMETERS
from fastrnn_kernels.cells.registry import Entry, register
from fastrnn_kernels.equations.define import Derived, define
from fastrnn_kernels.equations.errors import EquationError

Names = str | Sequence[str]


def cell(
    gates: Names,
    states: Names = "h",
    per_unit: Names = "",
    *,
    save: Names = "",
    recompute: Names = "",
) -> Callable[[Callable[..., Any]], type[DefinedLayer]]:
    """Make a class of layers of the forward equations of a cell.

        from fastrnn.equations import sigmoid, tanh

        @fastrnn.cell(gates="i f g o", states="h c", per_unit="p_i p_f p_o")
        def PeepholeLSTM(a, s, p):
            i = sigmoid(a.i + p.p_i * s.c)
            f = sigmoid(a.f + p.p_f * s.c)
            c = f * s.c + i * tanh(a.g)
            o = sigmoid(a.o + p.p_o * c)
            return o * tanh(c), c

        lstm = PeepholeLSTM(64, 128, num_layers=2, bidirectional=True)

    The function is run once, on symbols; nothing of it runs again. Its arguments are those of one
    unit: `a`, the gates' sums; `s`, the old states; `p`, the parameters that each unit has of its
    own. It returns the new states in order. `a.i` is the sum W x + b + R h + b; `a.i.x` and
    `a.i.h` are its two parts, where they are needed apart; `a.i(value)` has R multiply another
    value in place of h. A gate of which only `a.i.x` is used has no R. Functions are those of
    `fastrnn.equations`; numbers are constants.

    gates: names of the gates, in the order of the rows of the weights, as "i f g o" or a sequence.
    states: names of the states, h, which is the output, first.
    per_unit: names of vectors (H,) of parameters.
    save, recompute: names of lines of the function whose values are kept for the backward pass, or
        are computed anew there; without, what costs less is done.

    The class takes the arguments of `fastrnn.LSTM`, without proj_size, and does what it does:
    calls, gradients, streams, files, export to C, CUDA. `.Cell` is the class of its single step;
    `.source` the functions that were derived; `.check()` compares them with differences;
    `.torch(...)` and `.keras(...)` make a module and a layer of those frameworks.

    Raises EquationError, with the line, for what are no equations of a cell.
    """
    chosen = {
        "gates": _names("gates", gates),
        "states": _names("states", states),
        "per_unit": _names("per_unit", per_unit),
        "save": _names("save", save),
        "recompute": _names("recompute", recompute),
    }
    given = chosen["gates"] + chosen["per_unit"]
    for name in set(given):
        if given.count(name) > 1:
            raise EquationError(f"{name!r} is named twice among gates and per_unit")
    for name in chosen["per_unit"]:
        if name in PARAMETERS:
            raise EquationError(f"per_unit has {name!r}, which every layer has: call it otherwise")
        if name.startswith("initial_"):
            raise EquationError(f"per_unit has {name!r}: initial_... are what states begin from")
        if name in chosen["states"]:
            raise EquationError(f"{name!r} is named in states and in per_unit")
    if not chosen["gates"]:
        raise EquationError("gates names none, wanted at least one, as in gates='i f g o'")
    if chosen["states"][:1] != ("h",):
        raise EquationError(
            f"states is {states!r}, wanted 'h', which is the output, first, as in states='h c'"
        )

    def make(function: Callable[..., Any]) -> type[DefinedLayer]:
        name = getattr(function, "__name__", "")
        if name.endswith("Cell"):
            raise EquationError(
                f"equations are called {name!r}: call them by the layer, {name[:-4] or 'Own'!r}; "
                "the class of its single step is its .Cell"
            )
        known = CLASSES.get(name)
        if name == "Linear" or (known is not None and not issubclass(known, Defined)):
            raise EquationError(f"{name} is a class of fastrnn's own: call the equations otherwise")
        return _classes(function, define(function, **chosen))

    return make


def _names(argument: str, given: Names) -> tuple[str, ...]:
    if not isinstance(given, Sequence):
        raise EquationError(f"{argument} is {given!r}, wanted names, as in {argument}='i f'")
    names = tuple(given.split()) if isinstance(given, str) else tuple(given)
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise EquationError(f"{argument} has {name!r}, wanted names, as in {argument}='i f'")
        if iskeyword(name):
            raise EquationError(f"{argument} has {name!r}, a word of Python's: call it otherwise")
    if len(set(names)) < len(names):
        raise EquationError(f"{argument} is {given!r}, which names one twice")
    return names


def _classes(function: Callable[..., Any], derived: Derived) -> type[DefinedLayer]:
    """The class of layers, with that of single steps as its `Cell`; both are registered."""
    kind = function.__name__
    for name in (kind, f"{kind}Cell"):
        CLASSES.pop(name, None)  # of a cell that is defined anew
    register(Entry(kind, derived.cell, kind, defined=True))
    common = {
        "__module__": function.__module__,
        "source": derived.source,
        "_derived": derived,
        "_cell": derived.cell,
    }
    cell = derived.cell
    parameters = f"Gates, in the order of the weights' rows: {', '.join(cell.gates)}."
    told = f"{function.__doc__ or f'Layers of the cell {kind}.'}\n\n{parameters}\n"
    metaclass: Any = type(DefinedLayer)
    step = metaclass(
        f"{kind}Cell",
        (DefinedCell,),
        {
            **common,
            "kind": f"{kind}Cell",
            "__qualname__": f"{function.__qualname__}.Cell",
            "__doc__": f"One step of `{kind}`. Arguments as those of `fastrnn.LSTMCell`.\n",
            "torch": classmethod(_torch),
            "keras": classmethod(_keras),
        },
    )
    layer: type[DefinedLayer] = metaclass(
        kind,
        (DefinedLayer,),
        {
            **common,
            "kind": kind,
            "__qualname__": function.__qualname__,
            "__doc__": f"{told}Arguments as those of `fastrnn.LSTM`, without proj_size.\n",
            "Cell": step,
            "torch": classmethod(_torch),
            "keras": classmethod(_keras),
        },
    )
    keras = sys.modules.get("fastrnn.keras.defined")
    if keras is not None:  # whose files name classes that it knows
        keras.layer_class(layer)
    return layer


def _torch(cls: type[Defined], /, *arguments: Any, **options: Any) -> Any:
    """Make a `torch.nn.Module` of the cell.

    Its arguments are those of `torch.nn.LSTM`, or `LSTMCell`, without proj_size; so are its calls,
    its state and its errors. Its parameters are called as fastrnn's own are.
    """
    from fastrnn.torch.defined import module_class

    return module_class(cls)(*arguments, **options)


def _keras(cls: type[Defined], /, units: int, **options: Any) -> Any:
    """Make a `keras.layers.Layer` of the cell.

    Its arguments are those of `keras.layers.LSTM`, or `LSTMCell`, without activations;
    `per_unit_initializer`, `_regularizer` and `_constraint` are for the
    parameters that each unit has of its own.
    """
    from fastrnn.keras.defined import layer_class

    return layer_class(cls)(units, **options)
