"""The models, as data: which layers, which sizes, what a step is.

No framework is imported, so that the command line can name the models without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

NAME = "loop"


@dataclass(frozen=True)
class Model:
    """An embedding where there is a vocabulary, a recurrent layer, and a dense one behind it.

    Attributes:
        about: what it is, in a few words.
        framework: whose layers and loop these are.
        inputs: I, the values of a step, or of a word where there is a `vocabulary`.
        outputs: of the dense layer.
        each_step: whether it gives an output at each step, else at the last one.
        lengths: T of the shortest and the longest sequence, packed; None where all have T.
        training: forward pass, loss, backward pass, clipping and Adam; else inference.
    """

    name: str
    about: str
    framework: str
    cell: str
    T: int
    B: int
    inputs: int
    hidden: int
    outputs: int
    num_layers: int = 1
    bidirectional: bool = False
    vocabulary: int | None = None
    each_step: bool = False
    batch_first: bool = True
    lengths: tuple[int, int] | None = None
    training: bool = True

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        wanted = ("torch",) if self.framework == "torch" else ("torch", "keras")
        return tuple(name for name in wanted if find_spec(name) is None)

    def __str__(self) -> str:
        return f"{self.name} ({self.about})"


MODELS = (
    Model(
        "snippet", "the tutorials' LSTM(10, 20), T=50, B=32", "torch", "lstm",
        50, 32, 10, 20, 1,
    ),
    Model(
        "classifier", "Embedding, 2 bidirectional LSTM(128), T=64, B=32", "torch", "lstm",
        64, 32, 128, 128, 5, num_layers=2, bidirectional=True, vocabulary=5000,
    ),
    Model(
        "packed", "the same, packed, lengths 4 to 64", "torch", "lstm",
        64, 32, 128, 128, 5, num_layers=2, bidirectional=True, vocabulary=5000, lengths=(4, 64),
    ),
    Model(
        "language model", "Embedding, 2 LSTM(200), 2,000 words, T=35, B=20", "torch", "lstm",
        35, 20, 200, 200, 2000, num_layers=2, vocabulary=2000, each_step=True, batch_first=False,
    ),
    Model(
        "small GRU", "GRU(16, 64), T=20, B=8", "torch", "gru",
        20, 8, 16, 64, 4,
    ),
    Model(
        "large GRU", "GRU(256, 512), T=50, B=32", "torch", "gru",
        50, 32, 256, 512, 10,
    ),
    Model(
        "one sequence", "2 LSTM(80, 256), Linear, T=100, B=1", "torch", "lstm",
        100, 1, 80, 256, 40, num_layers=2, each_step=True, training=False,
    ),
    Model(
        "many sequences", "the same, B=64", "torch", "lstm",
        100, 64, 80, 256, 40, num_layers=2, each_step=True, training=False,
    ),
    Model(
        "series", "LSTM(100), Dense, T=100, B=64", "keras", "lstm",
        100, 64, 1, 100, 1,
    ),
    Model(
        "sentiment", "Embedding, LSTM(64), Dense, T=40, B=64", "keras", "lstm",
        40, 64, 32, 64, 1, vocabulary=5000,
    ),
)  # fmt: skip


def models_of(cells: Sequence[str] = ()) -> list[Model]:
    """The models, or those of some cells.

    Raises:
        ValueError: where no model has one of them.
    """
    for cell in cells:
        if cell not in {model.cell for model in MODELS}:
            raise ValueError(f"suite {NAME} has no model of cell {cell!r}")
    return [model for model in MODELS if not cells or model.cell in cells]
