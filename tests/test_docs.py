"""The pages of `docs`: their examples run, their links lead somewhere, what they name is there."""

import ast
import builtins
import re

import pytest

from pages import PAGES, ROOT, examples, run, shown, text

KERNELS = "kernels/fastrnn_kernels"


def test_streams(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the page writes files
    names = run("docs/streams.md")
    assert capsys.readouterr().out.splitlines() == shown("docs/streams.md")
    assert names["server"].batch_size == 32
    assert {"voice.o", "voice.h"} <= {path.name for path in (tmp_path / "build").iterdir()}


def test_devices(capsys):
    run("docs/devices.md")
    said = capsys.readouterr().out
    assert "layer 0 forward" in said
    assert "layer 0 backward" in said


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
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used <= known, f"{name} does not say what {used - known} is"


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
TO_BE_WRITTEN = {KERNELS + "/cells/cifg.py"}


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
