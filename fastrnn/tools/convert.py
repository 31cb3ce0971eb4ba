"""`fastrnn convert`: a model from one format to another, and what became of its numbers."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from fastrnn import weights
from fastrnn.arrays import Array
from fastrnn_kernels.cache.files import write_whole

#: Steps and rows of the input that both models are compared on.
_STEPS, _ROWS = 16, 3
#: What a difference may be: biases that a format keeps as one are rounded once more, RTNeural's are
#: float32, and each step feeds that back.
_ALLOWED = 1e-5
#: What another framework may differ by, of the largest value: it sums in another order.
_OFF = 1e-4


def _modules(model: Any) -> Sequence[Any]:
    from fastrnn.models.sequential import Sequential

    return model.modules if isinstance(model, Sequential) else (model,)


def _input(width: int, batch_first: bool, dtype: Any) -> Array:
    """The random input that models are compared on."""
    x = np.random.default_rng(0).standard_normal((_STEPS, _ROWS, width))
    return np.ascontiguousarray(x.swapaxes(0, 1) if batch_first else x, dtype)


def check_source(source: Path, kind: str | None, model: Any) -> str | None:
    """The framework that has been asked for what its file gives, or None where there is none.

    Raises ValueError where the model that was read gives something else.
    """
    from fastrnn.models.layer import Layer
    from fastrnn.models.linear import Linear
    from fastrnn.tools import sources

    modules = _modules(model)
    first = modules[0]
    width = first.in_features if isinstance(first, Linear) else first.input_size
    layers = [module for module in modules if isinstance(module, Layer)]
    x = _input(width, any(layer.batch_first for layer in layers), model.dtype)
    found = sources.outputs(source, kind or "", modules, x)
    if found is None:
        return None
    name, theirs = found
    y = model(x) if isinstance(model, Linear) else model(x)[0]
    if theirs.ndim == y.ndim - 1:  # of Keras, that gives the last step alone
        half = y.shape[-1] // (2 if modules[-1] in layers and modules[-1].bidirectional else 1)
        y = np.concatenate([y[:, -1, :half], y[:, 0, half:]], axis=-1)
    if theirs.shape != y.shape:
        raise ValueError(
            f"file {str(source)!r} gives y of shape {theirs.shape} in {name}, here of {y.shape}"
        )
    apart = float(np.abs(theirs - y).max(initial=0.0))
    if not apart <= _OFF * max(1.0, float(np.abs(y).max(initial=0.0))):
        raise ValueError(f"file {str(source)!r} gives results {apart:.1e} off in {name}")
    return name


def _as_layer(model: Any) -> Any:
    """A single step as the layer of one level that repeats it; a layer as it is."""
    from fastrnn.models.cells import RecurrentCell
    from fastrnn.models.classes import class_of

    if not isinstance(model, RecurrentCell):
        return model
    kind = class_of(model.kind.removesuffix("Cell"))
    config = {**kind._arguments(), **model.config()}
    return kind._restored(config, {f"{n}_l0": value for n, value in model.parameters.items()})


def outputs(model: Any) -> Array:
    """What a layer, cell or Sequential gives for a random input: y, all final h, then all c."""
    from fastrnn.models.layer import Layer
    from fastrnn.models.linear import Linear
    from fastrnn.models.sequential import Sequential

    model = _as_layer(model)
    modules = _modules(model)
    first = modules[0]
    width = first.in_features if isinstance(first, Linear) else first.input_size
    batch_first = any(module.batch_first for module in modules if isinstance(module, Layer))
    x = _input(width, batch_first, model.dtype)
    y, states = (model(x), ()) if isinstance(model, Linear) else model(x)
    each = states if isinstance(model, Sequential | Linear) else (states,)
    parts = [state if isinstance(state, tuple) else (state,) for state in each]
    found = [y.swapaxes(0, 1) if batch_first else y]
    found += [part[k] for k in range(2) for part in parts if k < len(part)]
    return np.concatenate([np.ravel(one) for one in found]).astype(np.float64)


def _with_choices(again: Any, model: Any) -> Any:
    """A model of a file that holds parameters alone, with the activations of the one written."""
    choices = []
    for module in _modules(model):
        names = ("activation", "nonlinearity", "reset_after")
        own = {name: value for name, value in module.config().items() if name in names}
        levels = getattr(module, "num_layers", 1)
        choices += [own] * (1 if len(_modules(again)) == len(_modules(model)) else levels)
    made = [
        type(module)._restored({**module.config(), **own}, module.parameters)
        for module, own in zip(_modules(again), choices, strict=True)
    ]
    return made[0] if len(made) == 1 else type(again)(*made)


def _in_full(model: Any) -> Any:
    """A model of bfloat16 as one of float32, which is what other formats have."""
    if model.compute != "bfloat16":
        return model
    made = []
    for module in _modules(model):
        dtype = "float32" if module.compute == "bfloat16" else module.compute
        made.append(type(module)._restored({**module.config(), "dtype": dtype}, module.parameters))
    return made[0] if len(made) == 1 else type(model)(*made)


def convert(
    source: Path, target: Path, *, origin: str | None = None, to: str | None = None,
    prefix: str = "", with_framework: bool = False,
) -> float:  # fmt: skip
    """Write the model of one file to another, once it has been read back.

    with_framework: first compare it with what the source's own framework makes of the source,
        where that is installed.

    Returns the largest difference between what both models give for a random input. Raises
    ValueError where the file cannot hold the model, or holds other numbers, OSError or
    ImportError as `fastrnn.load`. A single step, as torch's LSTMCell, becomes a layer of one level
    in formats that have no steps.
    """
    model = weights.single(weights.load(source, prefix=prefix, of=origin), source)
    steps = _as_layer(model) is not model
    if with_framework and not prefix and not steps:
        check_source(source, origin or weights.format_of(source), model)
    if len(_modules(model)) == 1:  # RTNeural's files hold a list of layers, also of one
        model = _modules(model)[0]
    to = to or weights.format_of(target)
    if to not in ("fastrnn", "torch"):  # others have no single steps
        model = _as_layer(model)
    if to != "fastrnn":
        model = _in_full(model)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / target.name  # a file in the target's place stays if this fails
        try:
            weights.save(model, copy, to=to)
            plain = copy.suffix.lower() == ".safetensors"
            again = weights.load(copy, of="fastrnn" if plain else to)
        except ValueError as error:
            told = str(error).replace(repr(str(copy)), repr(str(target)))
            raise ValueError(told) from None
        data = copy.read_bytes()
    if to == "torch" or target.suffix.lower() == ".h5":
        again = _with_choices(again, model)
    found = outputs(model), outputs(again)
    if found[0].shape != found[1].shape:
        raise ValueError(f"file {str(target)!r} was read back as another model, {again!r}")
    apart = float(np.abs(found[0] - found[1]).max(initial=0.0))
    if not apart <= _ALLOWED:
        raise ValueError(f"file {str(target)!r} was read back with results {apart:.1e} off")
    write_whole(target, data)
    return apart


_SUFFIXES = [f"{name} ({', '.join(weights.suffixes_of(name))})" for name in weights.FORMATS]
_HELP = f"""Convert a model from one format to another.

Formats are {", ".join(_SUFFIXES)}; with --to haste also .safetensors. IN has to give what it
gives in its own framework, where that is installed; OUT is read back, and the largest difference
between the results of both models is told.
"""


@click.command(name="convert", help=_HELP)
@click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False))
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False))
@click.option("--from", "origin", metavar="FORMAT", help="Of IN, if its name does not say.")
@click.option("--to", metavar="FORMAT", help="Of OUT, if its name does not say.")
@click.option(
    "--prefix",
    metavar="NAME",
    default="",
    help="Of the layer to take from IN, where it has more; `fastrnn show` tells.",
)
def command(source: str, target: str, origin: str | None, to: str | None, prefix: str) -> None:
    """Convert a file, and tell how far the results of both models are apart."""
    for option, name in (("--from", origin), ("--to", to)):
        if name is not None and name not in weights.FORMATS:
            wanted = ", ".join(weights.FORMATS)
            raise click.BadParameter(f"{name!r} is none of {wanted}", param_hint=option)
    try:
        apart = convert(
            Path(source), Path(target), origin=origin, to=to, prefix=prefix, with_framework=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from None
    size = Path(target).stat().st_size
    click.echo(f"{target} ({size:,} bytes); largest difference {apart:.1e}")
