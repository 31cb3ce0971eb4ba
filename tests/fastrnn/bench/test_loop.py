"""The suite `loop`: its models' answers, its clock, where time goes, and what is shown of it."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from fastrnn.bench import parity
from fastrnn.bench.loop import report
from fastrnn.bench.loop import run as loop
from fastrnn.bench.loop.data import batch
from fastrnn.bench.loop.models import MODELS, Model, models_of
from fastrnn.bench.loop.program import build
from fastrnn.bench.loop.shares import SHARES, Watches
from fastrnn.bench.process import WorkerError
from fastrnn.bench.results import Results
from fastrnn.cli.main import main

PACKED = Model(
    "packed", "a small one", "torch", "lstm", 6, 5, 4, 8, 3,
    num_layers=2, bidirectional=True, vocabulary=20, lengths=(2, 6),
)  # fmt: skip
SERIES = Model("series", "a small one", "keras", "gru", 6, 5, 1, 8, 1)
MACHINE = {
    "versions": {"fastrnn": "1.2.3", "torch": "4.5"},
    "threads": None,
    "cpu": "A processor",
    "load": 0.2,
    "stops": True,
}


def answers(model, own, dtype):
    """With the parameters' first values, and with their second after a step in between."""
    program = build(model, own, dtype)
    one, other = (program.load(batch(model, index)) for index in range(2))
    program.rewind(one)
    found = [program.read(program.run(one))]
    program.run(other)
    program.rewind(one)
    return [*found, program.read(program.run(one))]


@pytest.mark.parametrize("name", [model.name for model in MODELS if model.framework == "torch"])
def test_fastrnn_gives_what_the_framework_does(name):
    pytest.importorskip("torch")
    (model,) = (model for model in MODELS if model.name == name)
    model = replace(model, T=min(model.T, 20), B=min(model.B, 8), lengths=model.lengths and (4, 20))
    want = answers(model, False, "float64")
    wrong = [
        parity.difference(got, one, "float32")
        for got, one in zip(answers(model, True, "float32"), want, strict=True)
    ]
    assert wrong == [None, None]
    name = "loss" if model.training else "outputs"
    assert not np.allclose(want[0][name], want[1][name])
    gradients = {f"d{name}" for name in ("recurrent.weight_hh_l0", "dense.bias")}
    assert gradients <= want[0].keys() or not model.training


@pytest.mark.parametrize("model", [PACKED, SERIES], ids=["torch", "keras"])
def test_a_model_gets_all_its_numbers(model, monkeypatch):
    if model.missing:
        pytest.skip(f"without {' and '.join(model.missing)}")
    for name in ("CALIBRATION_SECONDS", "SAMPLE_SECONDS"):
        monkeypatch.setattr(loop, name, 0.01)
    monkeypatch.setattr(loop, "PROCESSES", 2)
    done = []
    rows = loop.run([model], 1, 120.0, done.append, seconds=0.01)
    assert done == [model]
    assert [row.error for row in rows] == [None, None]
    assert [row.contender for row in rows] == ["fastrnn", model.framework]
    for row in rows:
        assert 0 < row.median_s <= row.p99_s < 60
        assert row.samples == len(row.taken) == 3 * loop.PROCESSES
        assert row.calls >= 1
    shares = rows[0].shares
    assert rows[1].shares is None
    assert tuple(shares) == SHARES
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    kept = json.loads(json.dumps(rows[0].as_json()))
    assert (kept["suite"], kept["model"], kept["cell"]) == ("loop", model.name, model.cell)
    assert kept["shares"] == shares


class Told:
    """A worker that gives the answers it was told to, or raises them."""

    def __init__(self, threads, timeout):
        self.closed = 0

    def __enter__(self):
        return self

    def __exit__(self, *of_error):
        self.close()

    def close(self):
        self.closed += 1

    def send(self, method, model, own, dtype):
        self.who = "own" if own else dtype
        if isinstance(self.answers[self.who], str):
            self.broken = self.answers[self.who]

    def receive(self):
        if hasattr(self, "broken"):
            raise WorkerError(self.broken)

    def ask(self, method, *arguments):
        if method == "build_loop":
            self.send(method, *arguments)
            return self.receive()
        first, again = self.answers[self.who]
        found = {
            "first": (1.5, first), "again": again, "calibrate": 0.5, "sample": 0.25,
            "memory": 7, "shares": {"forward": 1.0},
        }  # fmt: skip
        return found[method]


def loss(value, dtype=np.float32):
    return {"loss": np.array(value, dtype)}


@pytest.mark.parametrize(
    ("changed", "errors"),
    [
        ({}, [None, None]),
        ({"own": (loss(1), loss(3))}, ["loss differs", None]),
        ({"own": (loss(np.nan), loss(2))}, ["loss differs", None]),
        ({"float32": (loss(1.1), loss(2))}, [None, "loss differs"]),
        ({"own": "KeyError: 'x'"}, ["KeyError: 'x'", None]),
        ({"float64": "no memory"}, ["no answer to compare with", "no answer to compare with"]),
    ],
)
def test_who_is_wrong_is_told_and_not_timed(monkeypatch, changed, errors):
    monkeypatch.setattr(loop, "Worker", Told)
    wide = loss(1, np.float64), loss(2, np.float64)
    right = {"own": (loss(1), loss(2)), "float32": (loss(1), loss(2)), "float64": wide}
    monkeypatch.setattr(Told, "answers", right | changed, raising=False)
    rows = loop.run([PACKED], 1, 1.0, seconds=0.01)
    for row, wanted in zip(rows, errors, strict=True):
        assert (row.error is None) == (wanted is None)
        assert wanted is None or wanted in row.error
        assert row.median_s == (0.25 if wanted is None else None)
    if errors == [None, None]:
        samples = rows[0].samples
        assert rows[0] == loop.Row(
            PACKED, "fastrnn", 0.25, 0.25, 1.0, samples, 1, 7, {"forward": 1.0},
            taken=(0.25,) * samples,
        )  # fmt: skip


def test_time_inside_of_a_watched_place_is_not_its_own(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("fastrnn.bench.loop.shares.perf_counter", lambda: float(next(now)))
    watches = Watches()
    inner = watches.around(lambda: None, "packing")
    run = watches.around(lambda: None, None)

    def start():
        inner()
        return "started"

    backward = watches.around(start, "backward")
    with watches.watching("framework"):
        assert backward() == "started"
        run()
        with pytest.raises(ZeroDivisionError):
            watches.around(lambda: 1 / 0, "forward")()
    # A second passes between any two looks at the clock, but when one follows at once.
    own = {name: seconds for name, seconds in watches.seconds.items() if seconds}
    assert set(own) == {"packing", "backward", "forward", "framework"}
    assert own["backward"] > own["packing"]


def rows(own_s=0.1, other_s=0.15, model=PACKED, **own):
    shares = dict.fromkeys(SHARES, 1 / len(SHARES))
    return [
        loop.Row(model, "fastrnn", own_s, 2 * own_s, 3.0, 9, 1, 0, shares, **own),
        loop.Row(model, model.framework, other_s, 2 * other_s, 0.5, 9, 1, 0),
    ]


def shown(results):
    file = io.StringIO()
    report.show(Results(MACHINE, results), ["a note"], Console(width=60, file=file))
    return file.getvalue()


def test_the_table_has_every_number_however_narrow_the_window():
    gru = replace(PACKED, name="other", cell="gru")
    text = shown([*rows(), *rows(0.1, 0.6, gru)])
    lines = [line for line in text.splitlines() if "a small one" in line]
    wanted = "training 150 ms 100 ms 200 ms 1.50 17 17 17 17 17 17"
    assert lines[0].split() == ["packed:", "a", "small", "one", *wanted.split()]
    assert "fastrnn 1.2.3, suite loop, default environment, on A processor" in text
    assert "all models 3.00, LSTMs alone 1.50" in text
    assert text.rstrip().endswith("a note")


def test_a_fault_stands_in_the_table_and_below():
    own, other = rows()
    text = shown([loop.Row(PACKED, "fastrnn", error="loss differs"), other])
    assert text.count(report.FAILED) == 2
    assert "FAILED packed (a small one), layers of fastrnn: loss differs" in text
    assert "all models" not in text
    assert own.error is None


def bench(*options):
    return CliRunner().invoke(main, ["bench", "--suite", "loop", *options])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--shape 1,1,1,1 --dtype float64", "no --shape and no --dtype"),
        ("--pass train --peers torch", "no --pass and no --peers"),
        ("--device cuda", "no --device"),
        ("--cell rnn", "no model of cell 'rnn'"),
    ],
)
def test_options_that_it_does_not_take(options, text):
    result = bench(*options.split())
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


def test_models_of_a_cell():
    assert models_of() == list(MODELS)
    assert [model.name for model in models_of(["gru"])] == ["small GRU", "large GRU"]


@pytest.mark.parametrize("good", [True, False])
def test_the_command_writes_its_rows_and_fails_with_a_contender(monkeypatch, tmp_path, good):
    found = rows() if good else rows(error="loss differs")
    monkeypatch.setattr(loop, "run", lambda models, *how: found)
    file = tmp_path / "loop.json"
    result = bench("--json", str(file), "--cell", "gru")
    assert result.exit_code == (0 if good else 1)
    kept = json.loads(file.read_text())
    assert [row["contender"] for row in kept["rows"]] == ["fastrnn", "torch"]
    assert kept["machine"]["threads"] is None


def test_without_a_framework_its_models_are_left_out_by_name(monkeypatch):
    there = "fastrnn.bench.loop.models.find_spec"
    monkeypatch.setattr(
        loop, "run", lambda models, *how: [row for model in models for row in rows(model=model)]
    )
    monkeypatch.setattr(there, lambda name: None if name == "keras" else name)
    result = bench()
    assert result.exit_code == 0
    assert "without keras, models that need it are left out" in result.output
    assert "sentiment" not in result.output
    monkeypatch.setattr(there, lambda name: None)
    result = bench()
    assert result.exit_code == 1
    assert "pip install torch keras" in result.output
