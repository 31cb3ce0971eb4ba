"""What a file holds, part by part, and by which prefix each is reached."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastrnn.arrays import Shape
from fastrnn.models.layer import Layer
from fastrnn.models.linear import Linear
from fastrnn.models.recurrent import Recurrent
from fastrnn.models.sequential import Sequential

#: Parts that an error lists; of each, arrays; and characters in all.
_LISTED, _ARRAYS, _CHARACTERS = 12, 2, 4_000


@dataclass(frozen=True)
class Part:
    """What stands under one prefix of a file.

    prefix: what `fastrnn.load(file, prefix=...)` reaches it by; "" for the whole file.
    shapes: of its arrays, by their names behind the prefix.
    model: what `load` makes of it; None for what fastrnn has not, whose `reason` says why.
    """

    prefix: str
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    model: Any = None
    reason: str = ""

    @property
    def loads(self) -> bool:
        """Whether `load` takes it."""
        return self.model is not None


def brief(model: Any) -> str:
    """A model in a few words: LSTM 3 → 5, 2 levels, both directions."""
    if isinstance(model, Sequential):
        return "Sequential of " + ", ".join(map(brief, model.modules))
    if isinstance(model, Linear):
        behind = f", {model.activation}" if model.activation else ""
        return f"Linear {model.in_features} → {model.out_features}{behind}"
    if not isinstance(model, Recurrent):
        return type(model).__name__
    words = [f"{model.kind} {model.input_size} → {model.hidden_size}"]
    if isinstance(model, Layer):
        if getattr(model, "proj_size", 0):
            words.append(f"projected to {model.output_size // model.directions}")
        if model.num_layers > 1:
            words.append(f"{model.num_layers} levels")
        if model.bidirectional:
            words.append("both directions")
        if model.batch_first:
            words.append("batch first")
    return ", ".join(words)


def states(model: Any) -> str:
    """The states of a model with their shapes: h (2, B, 5), c (2, B, 5)."""
    modules = model.modules if isinstance(model, Sequential) else (model,)
    found = []
    for module in modules:
        if not isinstance(module, Recurrent):
            continue
        for letter in module._cell.states:
            width = module.hidden_size
            if letter == "h" and isinstance(module, Layer):
                width = module.output_size // module.directions
            axes = f"B, {width}"
            if isinstance(module, Layer):
                axes = f"{module.num_layers * module.directions}, {axes}"
            found.append(f"{letter} ({axes})")
    return ", ".join(found)


def shapes_of(arrays: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of what has one."""
    return {name: tuple(a.shape) for name, a in arrays.items() if hasattr(a, "shape")}


def arrays_told(shapes: Mapping[str, Shape], most: int = _ARRAYS) -> str:
    """Some arrays by name and shape."""
    told = [f"{name} {shape}".strip() for name, shape in list(shapes.items())[:most]]
    rest = len(shapes) - len(told)
    return ", ".join(told) + (f" and {rest} more" if rest > 0 else "")


def listing(parts: Sequence[Part]) -> str:
    """What a file holds, as the end of an error's message; "" where there is nothing to tell."""
    good = [part for part in parts if part.loads and part.prefix]
    rest = [part for part in parts if not part.loads and part.shapes]
    words = [f"without a prefix it is {brief(p.model)}" for p in parts if p.loads and not p.prefix]
    if good:
        told = _listed(
            f"{part.prefix!r}, {brief(part.model)} ({arrays_told(part.shapes)})" for part in good
        )
        words.append(f"prefix takes one of them by name: {told}")
    if rest:
        told = _listed(f"{part.prefix!r} ({arrays_told(part.shapes)})" for part in rest)
        words.append(f"{'what else there is' if words else 'it holds'}: {told}")
    return "; ".join(words)


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(found[:_LISTED]) + more


def with_listing(message: str, parts: Sequence[Part]) -> str:
    """A message, and behind it what the file holds."""
    told = listing(parts)
    return f"{message}; {told[:_CHARACTERS]}" if told else message
