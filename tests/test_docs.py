"""The pages of `docs`: their examples run, their links lead somewhere, what they name is there."""

import ast
import builtins
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner
from numba import config

import fastrnn
import pages
from fastrnn.cli.main import main
from pages import PAGES, ROOT, examples, run, shown, text

KERNELS = "kernels/fastrnn_kernels"


def test_streams(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the page writes files
    names = run("docs/streams.md")
    assert capsys.readouterr().out.splitlines() == shown("docs/streams.md")
    assert names["server"].batch_size == 32
    assert {"voice.o", "voice.h"} <= {path.name for path in (tmp_path / "build").iterdir()}


def test_cells(capsys):
    names = run("docs/cells.md")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "(64,)"
    assert said[1].startswith("equations are traced once")
    assert "def forward(sums, states):" in said
    assert "Peephole: right, largest relative error in" in said
    assert "True" in said
    assert "weight_hh" not in said[-1]
    assert names["amp"].parameters["initial_h_l0"].shape == (24,)


def test_scale(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the page writes files
    run("docs/scale.md")
    assert capsys.readouterr().out == "1000 (1000, 2)\n"


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("pandas", "sklearn")),
    reason="needs scikit-learn and pandas",
)
def test_sklearn(capsys):
    names = run("docs/sklearn.md")
    assert names["score"] > 0.9
    assert names["search"].best_params_["hidden_sizes"] == (32,)
    assert set(names["tags"]) == {"noun", "verb"}
    assert names["ahead"].shape == (1, 24)
    assert names["error"] < 0.3
    assert capsys.readouterr().out.startswith("0.9")


def test_sentiment():
    model = run("docs/sentiment.md")["model"]
    assert [module.kind for module in model] == ["Embedding", "GRU", "Pool", "Linear"]


def test_devices(capsys):
    run("docs/devices.md")
    said = capsys.readouterr().out
    assert "layer 0 forward" in said
    assert "layer 0 backward" in said


def test_formats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the page writes files
    names = run("docs/formats.md")
    assert [(type(one), one.input_size, one.hidden_size) for one in names["model"]] == [
        (fastrnn.LSTM, 3, 8),
        (fastrnn.LSTM, 8, 8),
    ]
    assert {name: type(layer) for name, layer in names["layers"].items()} == {
        "l0": fastrnn.GRU,
        "l1": fastrnn.GRU,
    }
    wanted, h_n = names["layer"](names["x"], names["h_0"])
    assert names["y"].shape == (5, 2, 16)
    np.testing.assert_allclose(names["y"], wanted, atol=1e-6)
    np.testing.assert_allclose(names["h_n"], h_n, atol=1e-6)
    (command,) = re.findall(r"^fastrnn (convert layer.*)$", text("docs/formats.md"), re.MULTILINE)
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("keras", "torch")), reason="needs keras and torch"
)
def test_keras(tmp_path):
    """In a process of its own, where nobody has named a backend: the page does."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pages; pages.run('docs/keras.md')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests")], cwd=tmp_path, capture_output=True,
        env={**environment, "KERAS_HOME": str(tmp_path)}, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    swapped, left = done.stdout.splitlines()
    assert swapped == "('forecast/gru',)"
    assert left.startswith("{'forecast/exotic': \"an activation is none of those of Keras's")


@pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="needs Numba's simulator, or a GPU")
def test_cuda(monkeypatch):
    """With sizes that the simulator is done with, and its arrays, which are NumPy's."""
    monkeypatch.setitem(sys.modules, "cupy", np)
    small = re.sub(r"\b4096\b", "2", text("docs/cuda.md"))
    small = re.sub(r"\b(64|256)\b", "4", small)
    monkeypatch.setattr(pages, "text", lambda name: small)
    names = run("docs/cuda.md")
    assert names["Y"].shape == (10, 2, 4)
    H, random = 4, np.random.default_rng(0)
    sums, c, h = (random.standard_normal(shape) for shape in ((4, H), H, H))
    i, f, g, o = 1 / (1 + np.exp(-sums[0])), 1 / (1 + np.exp(-sums[1])), np.tanh(sums[2]), sums[3]
    wanted = f * c + i * g
    names["step"][1, H](sums, c, h)
    np.testing.assert_allclose(c, wanted, atol=1e-12)
    np.testing.assert_allclose(h, np.tanh(wanted) / (1 + np.exp(-o)), atol=1e-12)


def test_the_examples_of_every_page_are_run():
    here = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in PAGES:
        assert not examples(name) or f'run("{name}")' in here or f"run('{name}')" in here, name


@pytest.mark.parametrize("name", PAGES)
def test_examples_need_nothing_that_no_one_told(name):
    """Pages whose examples need a GPU, or another framework, are not run everywhere."""
    known = set(dir(builtins))
    for example in examples(name):
        tree = ast.parse(example)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                known.add(node.name)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                known.add(node.name)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used <= known, f"{name} does not say what {used - known} is"


def test_nobody_is_told_to_fetch_what_no_index_has():
    """The package is in none: extras are of a checkout, and messages name the packages."""
    folders = "fastrnn", "kernels", "docs", "examples"
    files = [path for one in folders for path in (ROOT / one).rglob("*.*")]
    for path in [*files, *ROOT.glob("*.md")]:
        if path.suffix in (".py", ".md"):
            told = re.findall(r"pip install[^\n&]*fastrnn\S*", path.read_text(encoding="utf-8"))
            assert not told, f"{path}: {told}"


def test_the_help_of_layers_names_all_float_types():
    for name in ("float32", "float64", "bfloat16", "float16"):
        assert f'"{name}"' in fastrnn.LSTM.__doc__
    assert "`forward(" in re.search(r"[^.]*return_gates[^.]*\.", text("README.md"), re.DOTALL)[0]


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(name)):
        assert (folder / link).exists(), f"{name} links to {link}"


def test_the_index_has_every_page_and_example():
    index = text("docs/index.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
    for example in (ROOT / "examples").glob("*.py"):
        assert f"(../examples/{example.name})" in index


def test_files_that_the_architecture_names_are_there():
    named = set(re.findall(r"`((?:K|fastrnn|tests)/[\w/]+\.py)`", text("docs/architecture.md")))
    assert len(named) > 50
    for name in named:
        assert (ROOT / name.replace("K/", f"{KERNELS}/")).is_file(), name


SOURCES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
for _folder in ("docs", "fastrnn", "kernels", "tests", "bench", "examples"):
    SOURCES += [path for path in (ROOT / _folder).rglob("*") if path.suffix in (".py", ".md")]
#: What CONTRIBUTING has its reader write.
TO_BE_WRITTEN = {"fastrnn/cells/single_gate.py"}


def folders(path):
    """Where a name that stands in a file may begin: its own folder and those above, or a package's.

    Pages count from the root, or from a package.
    """
    above = path.parents[: len(path.relative_to(ROOT).parents)]
    return [*above, ROOT / "fastrnn", ROOT / "kernels", ROOT / KERNELS]


def pointers(words):
    """The files that a text names in backticks."""
    return re.findall(r"`((?:[\w.]+/)*\w+\.py)\b", words)


def test_files_that_comments_and_pages_name_are_there():
    lost, found = [], 0
    for path in SOURCES:
        for name in pointers(path.read_text(encoding="utf-8")):
            whole = name.replace("K/", f"{KERNELS}/") if path.suffix == ".md" else name
            found += 1
            there = any((folder / whole).is_file() for folder in folders(path))
            if not there and name not in TO_BE_WRITTEN:
                lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert not lost
    assert found > 100


def rooms(tree):
    """The paths that a tree of the page names, by the indents of its lines."""
    found, parents = set(), {}
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        for word in line.strip().partition("  ")[0].split():
            if word.endswith(("/", ".py")):
                path = parents.get(indent - 2, "") + word
                found.add(path.rstrip("/"))
                parents[indent] = path
    return found


def test_the_tree_is_whole():
    tree = re.search(r"## The rooms\n\n```\n(.*?)```", text("docs/architecture.md"), re.DOTALL)[1]
    named = rooms(tree)
    for path in named:
        assert (ROOT / path).exists(), path
    here = set()
    for package in ("fastrnn", KERNELS, f"{KERNELS}/cpu", f"{KERNELS}/cuda"):
        for path in (ROOT / package).iterdir():
            if path.is_dir() if path.suffix != ".py" else path.name != "__init__.py":
                here.add(path.relative_to(ROOT).as_posix())
    here = {path for path in here if "__pycache__" not in path}
    assert here <= named, f"not in the tree: {here - named}"
