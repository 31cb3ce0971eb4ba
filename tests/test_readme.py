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
    off, swapped, *checked = capsys.readouterr().out.splitlines()
    # 300 steps of training amplify the last bits, which differ between kinds of CPU.
    assert float(off.removeprefix("off by ")) < 0.1
    assert swapped == "1: swapped"
    assert checked[0] == "Minimal: right, largest relative error in"


def rows(name):
    """The lines of a page's tables, cell by cell."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text(name).splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


def test_its_figures_are_those_of_the_long_table():
    table = {line[0]: line[1] for line in rows("docs/benchmarking.md") if len(line) == 4}
    assert table[""] == "Zen 5"
    head, *lines = [line for line in rows("README.md") if len(line) == 4]
    assert head[1:] == ["LSTM", "GRU", "RNN"]
    assert len(lines) == 5
    for name, *shown in lines:
        means, least = re.fullmatch(r"(.*) \((.*)\)", table[name.replace(" batches", "")]).groups()
        pairs = zip(means.split(" / "), least.split(" / "), strict=True)
        assert shown == [f"{mean} ({worst})" for mean, worst in pairs]


def test_training(capsys):
    run("docs/training.md")
    naive, ours = map(float, re.search(ERRORS, capsys.readouterr().out).groups())
    shown_naive, shown_ours = map(float, re.search(ERRORS, text("docs/training.md")).groups())
    assert naive == shown_naive
    # 300 steps of training amplify the last bits, which differ between kinds of CPU.
    assert shown_ours / 3 < ours < 3 * shown_ours
    assert ours < naive / 20
