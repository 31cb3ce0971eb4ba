"""The examples of docs/torch.md run as printed, one after the other."""

import re
from pathlib import Path

import fastrnn.torch

TEXT = (Path(__file__).parents[3] / "docs" / "torch.md").read_text(encoding="utf-8")


def test_examples_run_one_after_the_other(capsys):
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 3
    names = {}
    for example in examples:
        exec(compile(example, "docs/torch.md", "exec"), names)
    assert capsys.readouterr().out == "lstm: swapped\n"
    assert names["x"].grad.abs().sum() > 0
    assert type(names["model"].lstm) is fastrnn.torch.LSTM
    assert names["padded"].shape == (100, 3, 64)
    assert names["lengths"].tolist() == [30, 100, 7]


def test_every_example_is_code():
    for example in re.findall(r"```python.*?\n(.*?)```", TEXT, re.DOTALL):
        compile(example, "docs/torch.md", "exec")
