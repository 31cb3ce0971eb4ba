"""Activations of linear layers, by name. They are single operations of kernels.

Those of recurrent cells stand in `equations/activations.py`.
"""

from collections.abc import Callable
from typing import Any

from fastrnn_kernels.cells.functions import relu, sigmoid, tanh

PLAIN: dict[str, Callable[[Any], Any]] = {"tanh": tanh, "sigmoid": sigmoid, "relu": relu}
