"""Training without a framework: losses, optimisers, schedules, clipping, and `fit`.

    from fastrnn import train

    model = fastrnn.Sequential(fastrnn.LSTM(8, 64), fastrnn.Linear(64, 1))
    history = train.fit(model, (sequences, targets), train.MeanSquare(), train.Adam(1e-3))

All takes and gives NumPy arrays, and the gradients that a model's `backward` gives by name.
"""

from fastrnn.train.clipping import clip_by_norm, clip_by_value
from fastrnn.train.fit import fit
from fastrnn.train.history import DivergenceError, History
from fastrnn.train.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    Loss,
    MeanSquare,
    Pinball,
)
from fastrnn.train.optimizers import SGD, Adam, AdamW, NotFiniteError, Optimizer, RMSProp
from fastrnn.train.schedules import Constant, Cosine, Plateau, Schedule, WarmUp

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "DivergenceError",
    "History",
    "Huber",
    "Loss",
    "MeanSquare",
    "NotFiniteError",
    "Optimizer",
    "Pinball",
    "Plateau",
    "RMSProp",
    "Schedule",
    "WarmUp",
    "clip_by_norm",
    "clip_by_value",
    "fit",
]
