"""The examples of the README and of docs/training.md run as printed, and print what they say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ERRORS = r"naive forecast: ([\d.]+)\nfastrnn's LSTM: ([\d.]+)"


def run(name):
    """Run the Python examples of a file one after the other; its text."""
    text = (ROOT / name).read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    names = {}
    for example in examples:
        exec(compile(example, name, "exec"), names)
    return text


# PyTorch and Keras warn of their own affairs when they are imported together.
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # its examples write files
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    run("README.md")
    assert "1: swapped" in capsys.readouterr().out


def test_training(capsys):
    text = run("docs/training.md")
    naive, ours = map(float, re.search(ERRORS, capsys.readouterr().out).groups())
    shown_naive, shown_ours = map(float, re.search(ERRORS, text).groups())
    assert naive == shown_naive
    # 300 steps of training amplify the last bits, which differ between kinds of CPU.
    assert shown_ours / 3 < ours < 3 * shown_ours
    assert ours < naive / 20
