"""Imports point down only, and no files import each other in a circle.

The floors stand in docs/architecture.md. What is named by a string for `import_module`, imported
inside of a function, or for types alone, counts as well.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "fastrnn": ROOT / "fastrnn",
    "fastrnn_kernels": ROOT / "kernels" / "fastrnn_kernels",
}
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def modules():
    """All files by the names of their modules."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def named(name):
    """The module that a dotted name is, or lies in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imports(module):
    """The modules of these packages that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {named(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {named(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            told = re.fullmatch(r"(fastrnn(?:_kernels)?(?:\.\w+)+)(?::\w+)?", node.value)
            if told and told[1] in MODULES:
                found.add(told[1])
    return found - {"", module}


IMPORTS = {module: imports(module) for module in MODULES}


def floors():
    """Of each room its floor, counted from the top; rooms are named as in the page."""
    block = re.search(r"## Who may import whom\n.*?```\n(.*?)```", TEXT, re.DOTALL)
    assert block, "docs/architecture.md has no table of floors"
    return {
        room: number
        for number, line in enumerate(block[1].splitlines())
        for room in line.partition("#")[0].split()
    }


FLOORS = floors()


def room(module):
    """The most closely named room that a module lies in."""
    while module not in FLOORS:
        shorter = module.rpartition(".")[0]
        assert shorter, f"{module} lies in no room of docs/architecture.md"
        module = shorter
    return module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_arrows_point_down(module):
    own = room(module)
    for other in IMPORTS[module]:
        its = room(other)
        assert its == own or FLOORS[its] > FLOORS[own], f"{module} imports {other}"


def circles():
    """Groups of modules that import each other (Tarjan's strongly connected components)."""
    number, low, stack, found = {}, {}, [], []

    def visit(module):
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in IMPORTS[module]:
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            group = [stack.pop()]
            while group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for module in MODULES:
        if module not in number:
            visit(module)
    return found


@pytest.mark.smoke
def test_no_circle():
    assert circles() == []


def test_every_room_is_there():
    for name in FLOORS:
        assert name in MODULES or any(module.startswith(f"{name}.") for module in MODULES), name


def test_imports_are_found_wherever_they_stand():
    """Of a string, inside of a function, of a name in a package."""
    assert "fastrnn.onnx.read" in IMPORTS["fastrnn.weights"]
    assert "fastrnn.streams.cuda" in IMPORTS["fastrnn.models.streamable"]
    assert "fastrnn_kernels.cpu.device" in IMPORTS["fastrnn.device"]
