import io
from dataclasses import replace

import pytest
from rich.console import Console

from fastrnn.bench import report
from fastrnn.bench.cases import WRITTEN, Case, Shape, cases_of
from fastrnn.bench.contenders import BUILT_IN, COMPILED, OWN, PEERS
from fastrnn.bench.results import Results, Row

CASE = Case("quick", "lstm", Shape(10, 2, 30, 40), "train", "float32")
MACHINE = {
    "versions": {"fastrnn": "1.2.3", "torch": "4.5"},
    "threads": 2,
    "cpu": "A processor",
    "probes": {"fma": 200e9, "L1": 100e9, "memory": 10e9},
    "load": 0.2,
    "stops": True,
}
DEFINITION = {
    "cell": "MinGRU", "define_s": 0.003, "first_s": 4.5, "cpu_s": 2.5, "compiled": 14,
    "again_s": 0.02, "compiled_again": 0,
}  # fmt: skip
TORCH, NUMPY = PEERS["torch"], PEERS["numpy"]


def row(contender, median_s, **more):
    return Row(CASE, contender, median_s, 2 * median_s, 0.125, 0.5, 0.25, 9, 1, **more)


def printed(rows, notes=()):
    file = io.StringIO()
    report.show(Results(MACHINE, rows), (TORCH, NUMPY), notes, Console(width=80, file=file))
    return file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (1.5, "1.5 s"),
        (12.345, "12.3 s"),
        (0.0123, "12.3 ms"),
        (0.001, "1 ms"),
        (0.000999, "999 µs"),
        (0.0009996, "1 ms"),
        (1.23e-6, "1.23 µs"),
    ],
)
def test_durations_have_three_digits_and_a_unit(seconds, text):
    assert report.duration(seconds) == text


def test_what_is_written_stands_beside_what_is_built_in():
    case = Case("train", next(iter(WRITTEN)), Shape(10, 2, 30, 40), "train", "float32")
    found = [replace(row(one, s), case=case) for one, s in ((OWN, 0.2), (BUILT_IN, 0.18))]
    (line,) = (line for line in printed(found).splitlines() if "WrittenLSTM" in line)
    assert "180 ms 0.90" in " ".join(line.split())


def test_compiling_is_shown_where_it_takes_long_and_what_was_too_long():
    slow = PEERS["torch.compile"]
    case = Case("cells", "MinGRU", Shape(10, 2, 30, 40), "train", "float32")
    file = io.StringIO()
    own = replace(row(OWN, 0.2), case=case)
    for one, told in (
        (replace(row(slow, 0.3), case=case), "300 ms after 125 ms"),
        (Row(case, slow, error="gave no answer within 120 s", fault=False), "too long"),
    ):
        results = Results(MACHINE, [own, one], [DEFINITION])
        report.show(results, (slow,), (), Console(width=80, file=file))
        assert results.good
        assert told in file.getvalue()
    text = file.getvalue()
    assert "MinGRU 10,2,30,40 train: torch.compile gave no answer within 120 s" in text
    assert "suite cells" in text
    assert (
        "MinGRU: defined in 3 ms; forward and backward from an empty cache 4.5 s, 14 functions "
        "compiled (2.5 s of CPU time); in a second process 20 ms, 0 compiled"
    ) in text
    assert results.as_json()["definitions"] == [DEFINITION]


def test_the_ratio_is_the_best_peer_over_fastrnn():
    own, slow, fast = row(OWN, 0.2), row(TORCH, 0.9), row(NUMPY, 0.3)
    assert report.ratio(own, [slow, fast]) == pytest.approx(1.5)
    assert report.ratio(own, [slow, Row(CASE, NUMPY, error="wrong")]) == pytest.approx(4.5)
    assert report.ratio(own, []) is None
    assert report.ratio(None, [fast]) is None
    assert report.ratio(Row(CASE, OWN, error="wrong"), [fast]) is None


def test_the_table_has_every_number_however_narrow_the_window():
    text = printed([row(OWN, 0.2), row(TORCH, 0.9), row(NUMPY, 0.3)], ["a note"])
    (line,) = (line for line in text.splitlines() if "LSTM" in line)
    gflops = f"{CASE.flops / 0.2 / 1e9:.3g}"
    assert line.split() == (
        f"LSTM 10,2,30,40 train 200 ms 400 ms – {gflops} 25% 50% 900 ms 300 ms 1.50 0.12".split()
    )
    assert "fastrnn 1.2.3, shapes of your own as in suite quick, float32, 2 threads each" in text
    assert "200 GFLOP/s of fused multiply-adds; reads in GB/s: L1 100, memory 10" in text
    assert "torch 4.5" in text
    assert text.rstrip().endswith("a note")
    assert report.FAILED not in text


def test_the_headline_names_the_suite_whose_shapes_they_are():
    (case, *_) = cases_of("quick", ("lstm",), ())
    first, *_ = report.headline(MACHINE, [case], [])
    assert first.startswith("fastrnn 1.2.3, suite quick, float32")


def test_of_single_steps_the_table_has_compiled_code_and_the_worst_call():
    case = Case("stream", "gru", Shape(1, 1, 3, 5), "forward", "float32")
    spread = {"p50": 2e-6, "p99": 3e-6, "p99.9": 4e-6, "worst": 5e-3}
    numbers = (1e-6, 1.5e-6, 0.125, 0.5, 0.25, 9, 100, 0)
    rows = [
        Row(case, OWN, *numbers, single=spread),
        Row(case, COMPILED, 5e-8, *numbers[1:]),
        Row(case, NUMPY, 9e-6, *numbers[1:], single=spread),
    ]
    (line,) = (line for line in printed(rows).splitlines() if "GRU" in line)
    wanted = "GRU 1,1,3,5 forward 1 µs 0.05 µs 2 µs 3 µs 4 µs 5 ms – 0.24 25% 50% – 9 µs 9.00 0.12"
    assert line.split() == wanted.split()
    assert rows[0].as_json()["single_s"] == spread


def test_what_may_have_disturbed_a_run_is_said():
    assert report.disturbances(MACHINE) == []
    assert report.disturbances(MACHINE | {"load": None}) == []
    (busy,) = report.disturbances(MACHINE | {"load": 3.14})
    assert "busy before the run (load 3.1)" in busy
    (unstopped,) = report.disturbances(MACHINE | {"stops": False})
    assert "cannot stop a process" in unstopped


def test_a_fault_stands_in_the_table_and_below_with_its_reason():
    rows = [row(OWN, 0.2), Row(CASE, TORCH, error="[y] differs"), row(NUMPY, 0.3)]
    text = printed(rows)
    assert text.count(report.FAILED) == 2
    assert "FAILED LSTM 10,2,30,40 train float32, torch on cpu: [y] differs" in text
    assert not Results(MACHINE, rows).good
    assert Results(MACHINE, rows[:1]).good


def test_a_row_as_json():
    assert row(OWN, 0.2).as_json() == {
        "suite": "quick",
        "cell": "lstm",
        "T": 10,
        "B": 2,
        "I": 30,
        "H": 40,
        "pass": "train",
        "device": "cpu",
        "dtype": "float32",
        "contender": "fastrnn",
        "median_s": 0.2,
        "p99_s": 0.4,
        "gflops": pytest.approx(3 * 2 * 10 * 2 * 4 * 40 * 70 / 0.2 / 1e9),
        "of_peak": 0.25,
        "of_roof": 0.5,
        "compile_s": 0.125,
        "samples": 9,
        "calls": 1,
        "memory_bytes": None,
        "single_s": None,
        "threads": None,
        "error": None,
    }
