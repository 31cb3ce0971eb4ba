"""The NumPy backend: inference only, as all of Keras there."""

from typing import Any

import numpy as np

from fastrnn.keras.engine import Call, forward


def on_cpu(x: Any) -> bool:
    """Whether the kernels can read it."""
    return True


def run(
    call: Call, training: bool, x: Any, mask: Any, weights: Any, states: Any
) -> tuple[Any, list[Any]]:
    """A sequence through the kernels."""
    mask = None if mask is None else np.asarray(mask, np.bool_)
    shown, final, _ = forward(call, x, mask, weights, states, taping=False)
    return shown, list(final)
