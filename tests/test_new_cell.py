"""What CONTRIBUTING says of a new cell, done word for word in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import compilers

ROOT = Path(__file__).parent.parent
CELLS = Path("kernels", "fastrnn_kernels", "cells")

#: What users do with a class of fastrnn. x (T, B, I). In float64, which the grids have compiled;
#: `warmup` compiles for float32.
USES = """
import copy, ctypes, pickle, shutil
import numpy as np
import fastrnn
from fastrnn.export import export
from fastrnn.tools import tune
from fastrnn.weights import save

layer = fastrnn.CIFG(3, 5, num_layers=2, dtype="float64", seed=0)
assert repr(layer).startswith("CIFG(input_size=3, hidden_size=5, num_layers=2, bias=True")
assert "coupled input and forget gates" in fastrnn.CIFG.__doc__
x = np.random.default_rng(0).standard_normal((6, 1, 3))
y, (h, c) = layer(x)

step = fastrnn.CIFGCell(3, 5, dtype="float64", seed=1)
one, tape = step.forward(x[0])
assert step.backward(tape, one).parameters.keys() == step.parameters.keys()

stream = layer.stream()
assert np.array_equal(np.stack([stream.step(row[0]).copy() for row in x]), y[:, 0])
assert np.array_equal(stream.state[1], c)

for model in (layer, step, fastrnn.Sequential(layer, fastrnn.Linear(5, 1, dtype="float64"))):
    model.save("model.safetensors")
    for found in (fastrnn.load("model.safetensors"), pickle.loads(pickle.dumps(model)),
                  copy.deepcopy(model)):
        assert type(found) is type(model)
        assert found.parameters.keys() == model.parameters.keys()
        for name, value in model.parameters.items():
            assert np.array_equal(found.parameters[name], value)
layer.save("layer.safetensors")

for to in ("torch", "keras", "onnx"):
    try:
        save(layer, "elsewhere", to=to)
    except ValueError as error:
        assert "has no CIFG" in str(error), error
    else:
        raise AssertionError(f"{to} has a CIFG")

assert [str(p) for p in tune.points(["cifg"], ["float32"], [8], [1])] == ["cifg float32 H=8 B=1"]

files = {file.suffix: file for file in export(layer, "c", name="voice")}
assert "voice_step" in files[".h"].read_text()
if shutil.which("cc"):
    library = ctypes.CDLL(str(files[".so"].resolve()))
    library.voice_state_size.restype = ctypes.c_size_t
    state, out = ctypes.create_string_buffer(library.voice_state_size()), np.empty_like(y[:, 0])
    library.voice_reset(state)
    assert library.voice_block(state, x.ctypes, out.ctypes, ctypes.c_size_t(len(x))) == 0
    assert np.array_equal(out, y[:, 0])
"""

#: A class written out takes the place of the one that follows from the line.
WRITTEN = """
from fastrnn.models.layer import Layer
import fastrnn

class CIFG(Layer):
    "Words of its own."
    kind = "CIFG"

assert fastrnn.CIFG is CIFG
assert type(fastrnn.load("layer.safetensors")) is CIFG
"""

#: One unit on the simulator: i = o = 1/2 of sums 0, g = tanh(1).
DEVICE = """
import numpy as np
from numba import cuda
import fastrnn.cuda

step = fastrnn.cuda.cifg

@cuda.jit
def run(states):
    states[0], states[1] = step((0.0, 1.0, 0.0), (states[0], states[1]))

states = np.array([7.0, 1.0])
run[1, 1](states)
c = (1 + np.tanh(1)) / 2
assert np.allclose(states, (np.tanh(c) / 2, c), rtol=1e-12), states
"""


#: The kernels of which the table has rows, by their names.
KERNELS = """
import numpy as np
from MODULE import kernels

for kernel in kernels(np.dtype(np.float32), (9, 0)):
    print(kernel.name)
"""


def section():
    """The section of a new cell."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.partition("**A new cell**")[2].partition("\n**A constant state**")[0]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with the cell in it."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("fastrnn", "kernels", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    equations, step = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)
    (folder / CELLS / "cifg.py").write_text(equations, encoding="utf-8")

    (diff,) = re.findall(r"```diff\n(.*?)```", section(), re.DOTALL)
    imported, below, *_, above, entry = (line[1:] for line in diff.splitlines(keepends=True))
    registry = folder / CELLS / "registry.py"
    table = registry.read_text(encoding="utf-8")
    assert table.count(below) == table.count(above) == 1
    table = table.replace(below, imported + below).replace(above, above + entry)
    registry.write_text(table, encoding="utf-8")

    with (folder / "tests" / "reference.py").open("a", encoding="utf-8") as reference:
        reference.write("\n\n" + step)
    return folder


def run(package, *arguments, **settings):
    """What Python says in the copy."""
    paths = os.pathsep.join(map(str, (package, package / "kernels")))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env={**os.environ, "PYTHONPATH": paths, **settings},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def command(package, *arguments):
    return run(package, "-c", "from fastrnn.cli.main import main; main()", *arguments)


def test_the_tests_grids_hold_it_to_the_reference(package):
    files = ["fastrnn/models/test_layers_values.py::test_gates"]
    files += ["fastrnn/models/test_layers_gradients.py::test_gradients"]
    files += ["fastrnn/models/test_cells_values.py::test_values"]
    files += ["fastrnn_kernels/cells/test_equations.py"]
    paths = [str(Path("tests", *file.split("/"))) for file in files]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k"]
    said = run(package, "-m", "pytest", *paths, *options, "cifg or CIFG and not float32")
    assert int(re.search(r"(\d+) passed", said).group(1)) > 50


def test_what_users_do_with_it(package):
    pytest.importorskip("torch")
    pytest.importorskip("h5py")
    pytest.importorskip("onnx")
    run(package, "-c", USES)
    run(package, "-c", WRITTEN)


def test_the_commands_know_it(package):
    assert command(package, "warmup", "--cell", "cifg", "--inference").startswith("cifg float32: ")
    options = ["--cell", "cifg", "--shape", "3,2,4,5", "--pass", "train", "--json", "found.json"]
    said = command(package, "bench", *options, "--dtype", "float64", "--threads", "1")
    for peer in ("torch", "onnxruntime"):
        assert f"{peer} has no cifg" in said or f"no column for {peer}" in said
    rows = json.loads((package / "found.json").read_text())["rows"]
    assert {row["contender"] for row in rows} == {"fastrnn", "numpy"}
    assert all(row["error"] is None and row["median_s"] > 0 for row in rows)


@pytest.mark.compilers
def test_cuda_has_its_step(package):
    compilers.need("numba_cuda")
    run(package, "-c", DEVICE, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")


@pytest.mark.compilers
def test_the_table_of_registers_gets_its_rows(package):
    """By the command of the page: it looks at every kernel, which takes minutes, not done here."""
    compilers.need("numba_cuda")
    module, table = re.search(r"^python -m (\S+) --table (\S+)$", section(), re.MULTILINE).groups()
    names = run(package, "-c", KERNELS.replace("MODULE", module)).splitlines()
    new = {name for name in names if name.startswith("cifg ")}
    rows = (package / table).read_text(encoding="utf-8").splitlines()
    old = {row.partition(":")[0].removeprefix("float32 ") for row in rows}
    assert new
    assert set(names) - new <= old
    assert not new & old
