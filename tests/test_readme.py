"""The README's examples run as printed, and print what it says they do."""

import re
from pathlib import Path

TEXT = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
ERRORS = r"naive forecast: ([\d.]+)\nfastrnn's LSTM: ([\d.]+)"


def test_examples_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # they write a file
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) >= 3
    names = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    naive, ours = map(float, re.search(ERRORS, capsys.readouterr().out).groups())
    shown_naive, shown_ours = map(float, re.search(ERRORS, TEXT).groups())
    assert naive == shown_naive
    # 300 steps of training amplify the last bits, which differ between kinds of CPU.
    assert shown_ours / 3 < ours < 3 * shown_ours
    assert ours < naive / 20
