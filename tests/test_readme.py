"""The examples of the README and of docs/training.md run as printed, and print what they say."""

import re

import pytest

from pages import run, text

ERRORS = r"naive forecast: ([\d.]+)\nfastrnn's LSTM: ([\d.]+)"


# PyTorch and Keras warn of their own affairs when they are imported together.
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # its examples write files
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    run("README.md")
    assert "1: swapped" in capsys.readouterr().out


def test_training(capsys):
    run("docs/training.md")
    naive, ours = map(float, re.search(ERRORS, capsys.readouterr().out).groups())
    shown_naive, shown_ours = map(float, re.search(ERRORS, text("docs/training.md")).groups())
    assert naive == shown_naive
    # 300 steps of training amplify the last bits, which differ between kinds of CPU.
    assert shown_ours / 3 < ours < 3 * shown_ours
    assert ours < naive / 20
