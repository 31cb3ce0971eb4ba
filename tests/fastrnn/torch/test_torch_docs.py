"""The examples of docs/torch.md run as printed, one after the other."""

import re

import fastrnn.torch
from pages import examples, run, text


def test_examples_run_one_after_the_other(capsys):
    assert len(examples("docs/torch.md")) == 7
    names = run("docs/torch.md")
    assert capsys.readouterr().out == (
        "lstm: swapped\ntorch.bfloat16 torch.float32\ntorch.Size([32])\n"
    )
    assert names["x"].grad.abs().sum() > 0
    assert type(names["model"].lstm) is fastrnn.torch.LSTM
    assert names["padded"].shape == (100, 3, 64)
    assert names["lengths"].tolist() == [30, 100, 7]


def test_every_example_is_code():
    for example in re.findall(r"```python.*?\n(.*?)```", text("docs/torch.md"), re.DOTALL):
        compile(example, "docs/torch.md", "exec")
