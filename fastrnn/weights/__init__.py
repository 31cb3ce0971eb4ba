"""Models from and to files: one module for each format."""

import os
from pathlib import Path
from typing import Any

from fastrnn.device import kernels_for


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Any:
    """Read a model from a file, for a device.

    Of a `.safetensors` file the layer, cell or Sequential that was saved; of a `.json` file of
    RTNeural's a Sequential.

    Raises FileNotFoundError or another OSError if the file cannot be read, ValueError if
    it is cut short, of another format, or does not fit its own description, RuntimeError
    if the device cannot be used.
    """
    from fastrnn.weights import rtneural, safetensors

    kernels_for(device)
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path is {path!r}, wanted a path") from None
    reader = rtneural.load if Path(name).suffix.lower() == ".json" else safetensors.load
    return reader(name, device)
