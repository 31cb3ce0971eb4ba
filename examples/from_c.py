"""Export a model as C, build a program with it, and compare what it says.

`fastrnn.export` writes an object file and a header, weights inside; `from_c.c`, beside this file,
is the program. Neither Python nor Numba is there when it runs.

    python examples/from_c.py

prints the files' sizes, and the largest difference of the program's outputs from those of the
same model here. Without a C compiler (cc, gcc or clang on the path) it says so, and ends after
the export.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.export import export


def main(folder: Path) -> None:
    model = fastrnn.Sequential(fastrnn.GRU(2, 16, seed=0), fastrnn.Linear(16, 1, seed=0))
    for file in export(model, folder, name="voice"):
        print(f"{file.name}: {file.stat().st_size:,} bytes")

    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        print("no C compiler was found: the program is not built")
        return
    source, program = Path(__file__).with_name("from_c.c"), folder / "voice"
    subprocess.run([compiler, "-I", folder, source, folder / "voice.o", "-o", program], check=True)

    x = np.random.default_rng(0).standard_normal((1000, 2), dtype=np.float32)
    text = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in x)
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    said = np.array(done.stdout.split(), np.float32)
    wanted = model.stream().block(x)[:, 0]
    print(f"steps of the program: {len(said)}")
    print(f"largest difference: {np.abs(said - wanted).max():.1e}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
