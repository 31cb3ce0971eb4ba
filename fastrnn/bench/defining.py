"""What it takes to define a cell, and to run it for the first time and in a second process.

Run as a program, `python -m fastrnn.bench.defining CELL`, it prints the figures of its own process
as JSON; what it finds compiled is what the cache folder has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from time import perf_counter, process_time
from typing import Any


def _figures(cell: str) -> dict[str, Any]:
    """Of this process: seconds to define the cell, to run it, and what was compiled for that."""
    import numpy as np
    from numba.core import event

    from fastrnn.models.classes import entry_of, layer_of

    start = perf_counter()
    entry_of(cell)
    defined, before = perf_counter(), process_time()
    with event.install_recorder("numba:compile") as recorder:
        layer = layer_of(cell, 16, 16, device="cpu")
        y, _, tape = layer.forward(np.ones((4, 2, 16), np.float32))
        layer.backward(tape, y)
    return {
        "define_s": defined - start,
        "first_s": perf_counter() - defined,
        "cpu_s": process_time() - before,
        "compiled": sum(told.is_start for _, told in recorder.buffer),
    }


def measure(cell: str) -> dict[str, Any]:
    """Figures of a first process, whose cache is empty, and of a second one.

    Raises subprocess.CalledProcessError where the cell cannot be defined or run there.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {**os.environ, "FASTRNN_CACHE_DIR": folder, "PYTHONPATH": paths}
        command = [sys.executable, "-P", "-m", __name__, cell]
        first, second = (
            json.loads(subprocess.run(command, env=environment, check=True, stdout=-1).stdout)
            for _ in range(2)
        )
    again = {"again_s": second["first_s"], "compiled_again": second["compiled"]}
    return {"cell": cell, **first, **again}


if __name__ == "__main__":
    print(json.dumps(_figures(sys.argv[1])))
