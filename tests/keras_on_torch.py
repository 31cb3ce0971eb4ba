"""Keras, computing by torch, for tests of its files in this process."""

import os
import warnings

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # keras's own, at import
    keras = pytest.importorskip("keras")

#: For `pytestmark`: Keras asks torch's and NumPy's names of older versions, and how much memory
#: there is.
QUIET = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
]
