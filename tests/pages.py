"""The pages for users, and their examples: blocks of Python, but for those marked `no-run`."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted(["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])


def text(name):
    """A page."""
    return (ROOT / name).read_text(encoding="utf-8")


def examples(name):
    """The blocks that run."""
    return re.findall(r"```python\n(.*?)```", text(name), re.DOTALL)


def run(name):
    """Run a page's examples one after the other; the names that they have made."""
    found = examples(name)
    assert found
    names = {}
    for example in found:
        exec(compile(example, name, "exec"), names)
    return names


def shown(name):
    """What stands behind the prints of a page: `print(x)  # this`."""
    return re.findall(r"^print\(.*\)  # (.*)$", "\n".join(examples(name)), re.MULTILINE)
