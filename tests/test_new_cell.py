"""What CONTRIBUTING says of a new cell, done word for word in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def section():
    """The section of a new cell."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.partition("**A new cell**")[2].partition("\n**A new file format**")[0]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with the cell in it."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("fastrnn", "kernels", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    equations, step = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)
    (path,) = re.findall(r"`(fastrnn/cells/\w+\.py)`:", section())
    (folder / path).write_text(equations, encoding="utf-8")

    (diff,) = re.findall(r"```diff\n(.*?)```", section(), re.DOTALL)
    above, line = (line[1:] for line in diff.splitlines(keepends=True))
    files = folder / "fastrnn" / "cells" / "__init__.py"
    table = files.read_text(encoding="utf-8")
    assert table.count(above) == 1
    files.write_text(table.replace(above, above + line), encoding="utf-8")

    with (folder / "tests" / "steps_of_cells.py").open("a", encoding="utf-8") as steps:
        steps.write("\n\n" + step)
    return folder


def run(package, *arguments):
    """What Python says in the copy."""
    paths = os.pathsep.join(map(str, (package, package / "kernels")))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def test_the_tests_grids_hold_it_to_its_step(package):
    (name,) = re.findall(r"`pytest -k (\w+)`", section())
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", f"{name} and not float32"]
    said = run(package, "-m", "pytest", "tests/fastrnn/cells/test_cells.py", *options)
    assert int(re.search(r"(\d+) passed", said).group(1)) > 10


def test_the_commands_know_it(package):
    code = "from fastrnn.cli.main import main; main()"
    said = run(package, "-c", code, "warmup", "--cell", "SingleGate", "--inference")
    assert said.startswith("SingleGate float32: ")
