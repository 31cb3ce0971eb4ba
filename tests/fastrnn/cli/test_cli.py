"""The commands as a user has them: what they print, what they write, how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastrnn
from fastrnn.bench import command, timing
from fastrnn.bench.cases import cases_of
from fastrnn.cells import peephole_lstm
from fastrnn.cli.main import main

ROW = {
    "suite": str, "cell": str, "T": int, "B": int, "I": int, "H": int, "pass": str,
    "device": str, "dtype": str, "contender": str, "median_s": float, "p99_s": float,
    "gflops": float, "compile_s": float, "of_peak": float, "of_roof": float,
    "samples": int, "calls": int, "threads": int, "memory_bytes": int, "single_s": type(None),
    "error": type(None),
}  # fmt: skip
MACHINE = {
    "cpu": str, "cores": int, "platform": str, "features": list, "vector_bytes": int,
    "threads": int, "load": float, "stops": bool, "versions": dict, "caches": dict, "probes": dict,
    "devices": dict,
}  # fmt: skip
PROBES = {"fma": 1e12, "L1": 1e12, "L2": 1e12, "L3": 1e12, "memory": 1e12}

WRONG = """
from fastrnn.bench.contenders.numpy import Loop

class Wrong(Loop):
    def read(self, result):
        answer = super().read(result)
        answer["h_n"] = 1.01 * answer["h_n"]
        return answer

def build(case, threads, device):
    return Wrong(case)
"""


DEFINITION = {
    "define_s": 0.01, "first_s": 5.0, "cpu_s": 5.0, "compiled": 60, "again_s": 0.1,
    "compiled_again": 0,
}  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def short(monkeypatch):
    """A few samples to a case, and no probes; no cell is defined in processes of its own."""
    monkeypatch.setattr(timing, "MAX_ROUNDS", 3)
    monkeypatch.setattr(command, "measure_definition", lambda cell: {**DEFINITION, "cell": cell})
    monkeypatch.setattr(command, "probe", lambda threads, dtype, timeout: PROBES)


def test_a_good_run_prints_its_table_and_writes_its_json(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "MAX_ROUNDS", 3)
    file = tmp_path / "out.json"
    options = "--shape 5,3,4,7 --shape 2,1,3,9 --cell lstm --cell gru --peers numpy --threads 1"
    result = run("bench", *options.split(), "--device", "cpu", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert "FAILED" not in result.output
    assert "numpy" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:3] for line in lines if line and line[0] in ("LSTM", "GRU")] == [
        [cell, shape, pass_]
        for cell in ("LSTM", "GRU")
        for shape in ("5,3,4,7", "2,1,3,9")
        for pass_ in ("forward", "train")
    ]

    written = json.loads(file.read_text())
    assert written.keys() == {"machine", "rows"}
    assert {name: type(value) for name, value in written["machine"].items()} == MACHINE
    assert written["machine"]["threads"] == 1
    assert written["machine"]["versions"]["fastrnn"] == fastrnn.__version__
    probes = written["machine"]["probes"]
    assert {"fma", "L1", "L2", "memory"} <= probes.keys()
    assert all(value > 1e8 for value in probes.values())
    assert len(written["rows"]) == 2 * 2 * 2 * 2
    for row in written["rows"]:
        assert {name: type(value) for name, value in row.items()} == ROW
        assert row["suite"] == "quick"
        assert row["dtype"] == "float32"
        assert 0 < row["median_s"] <= row["p99_s"]
    assert {row["contender"] for row in written["rows"]} == {"fastrnn", "numpy"}


@pytest.mark.parametrize(
    "options",
    [
        "--suite stream --shape 1,1,3,5 --cell rnn",
        "--suite ragged --shape 6,4,3,5 --cell gru --pass train",
        "--suite sequence --shape 3,1,2,5 --cell lstm --dtype float64",
        "--suite train --shape 3,1,2,5 --cell rnn",
        "--suite deepbench --shape 3,1,2,5 --cell gru",
        "--suite scaling --shape 3,1,2,5 --cell gru --dtype bfloat16",
        "--suite cells --shape 3,2,4,5 --cell MinGRU --pass forward --dtype float64",
    ],
)
def test_every_suite_runs(short, options):
    result = run("bench", *options.split(), "--peers", "none")
    assert result.exit_code == 0, result.output
    assert "FAILED" not in result.output
    assert "peers: none" in result.stdout
    assert ("MinGRU: defined in 10 ms" in result.stdout) == ("--suite cells" in options)


def test_a_cell_of_ones_own_is_measured_from_the_current_folder(tmp_path):
    """The same equations under the same name have the same kernels, which are compiled once."""
    (tmp_path / "mine.py").write_text(Path(peephole_lstm.__file__).read_text(encoding="utf-8"))
    options = "--suite sequence --shape 3,2,4,5 --cell mine:PeepholeLSTM --dtype float64 "
    options += "--peers numpy --device cpu --threads 1 --json out.json"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fastrnn", "bench", *options.split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["contender"] for row in rows} == {"fastrnn", "numpy"}
    assert {row["cell"] for row in rows} == {"mine:PeepholeLSTM"}
    assert all(row["median_s"] > 0 for row in rows)
    assert "PeepholeLSTM 3,2,4,5" in done.stdout


def test_a_wrong_contender_fails_the_run_and_the_others_are_shown(short, tmp_path, monkeypatch):
    (tmp_path / "wrong_contender.py").write_text(WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "out.json"
    options = "--shape 3,2,4,5 --cell gru --pass forward --peers wrong=wrong_contender,numpy"
    result = run("bench", *options.split(), "--json", str(file))
    assert result.exit_code == 1, result.output
    assert "FAILED GRU 3,2,4,5 forward float32, wrong on cpu: h_n differs" in result.stdout
    rows = {row["contender"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["wrong"]["median_s"] is None
    assert rows["wrong"]["error"].startswith("h_n differs")
    assert rows["fastrnn"]["median_s"] > 0
    assert rows["numpy"]["error"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--shape 1,2,3", "T,B,I,H takes four integers, got '1,2,3'"),
        ("--shape 1,2,3,0", "positive integers, got '1,2,3,0'"),
        ("--suite stream --shape 2,1,1,1", "T=1, got 2,1,1,1"),
        ("--suite stream --pass train", "no pass 'train'"),
        ("--suite slow", "'slow' is not one of"),
        ("--cell elman", "no cell 'elman': there are rnn, "),
        ("--cell no_such_module:Own", "'no_such_module' cannot be imported: ModuleNotFoundError"),
        ("--cell math:Own", "'math' has no 'Own'"),
        ("--cell fastrnn:LSTM", "'fastrnn:LSTM' is no cell: wanted what @fastrnn.cell"),
        ("--dtype int8", "int8 is how a stream's weights are stored"),
        ("--dtype int16", "'int16' is not one of"),
        ("--threads 0", "0 is not in the range"),
        ("--timeout 0", "0.0 is not in the range"),
        ("--peers tensorflow", "unknown peer 'tensorflow'"),
        ("--peers numpy,numpy", "each name once"),
        ("--peers fastrnn=numpy", "not 'fastrnn'"),
        ("--peers mine=no_such_module", "mine: no module named no_such_module"),
        ("--json /no/such/folder/out.json", "cannot write to /no/such/folder"),
    ],
)
def test_bad_options_are_refused_before_anything_is_measured(monkeypatch, options, told):
    monkeypatch.setattr(command, "measure", None)
    result = run("bench", *options.split())
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.stderr.replace("│", " ").split())


def device(available):
    return [
        fastrnn.Device("cpu", True, "", {"model": "A processor"}),
        fastrnn.Device("cuda", available, "" if available else "no driver at all", {}),
    ]


def test_cuda_where_there_is_none_says_why(monkeypatch):
    monkeypatch.setattr(fastrnn, "devices", lambda: device(False))
    result = run("bench", "--device", "cuda")
    assert result.exit_code == 2
    assert "cuda cannot be used here: no driver at all" in result.stderr


def test_tuning_where_there_is_no_gpu_says_so(monkeypatch):
    monkeypatch.setattr(fastrnn, "devices", lambda: device(False))
    result = run("tune", "--cell", "lstm", "--size", "8")
    assert result.exit_code == 2
    assert "cuda cannot be used here: no driver at all" in result.stderr


def test_a_peer_that_is_not_installed_is_named_with_what_to_do(monkeypatch, short):
    monkeypatch.setattr("fastrnn.bench.contender.find_spec", lambda name: None)
    result = run("bench", "--shape", "2,1,2,3", "--cell", "rnn", "--pass", "forward")
    assert result.exit_code == 0, result.output
    assert "no column for torch: torch not installed" in result.stdout
    assert "no column for onnxruntime: onnxruntime and onnx not installed" in result.stdout
    assert "(pip install torch)" in result.stdout
    assert "(pip install onnxruntime onnx)" in result.stdout
    assert "numpy" in result.stdout
    asked = run("bench", "--peers", "torch")
    assert asked.exit_code == 2
    assert "pip install torch" in asked.stderr


def test_the_devices_decide_who_runs(monkeypatch):
    monkeypatch.setattr(fastrnn, "devices", lambda: device(True))
    cases = cases_of("quick")
    chosen = {
        asked: [own.device for own in command.field(asked, "none", cases).own]
        for asked in ("auto", "cpu", "cuda")
    }
    assert chosen == {"auto": ["cpu", "cuda"], "cpu": ["cpu"], "cuda": ["cuda"]}
    monkeypatch.setattr(fastrnn, "devices", lambda: device(False))
    field = command.field("auto", "none", cases)
    assert [own.device for own in field.own] == ["cpu"]
    assert field.notes == ("CUDA: no driver at all",)
    monkeypatch.setattr(fastrnn, "devices", lambda: device(True))
    steps = command.field("auto", "none", cases_of("stream"))
    found = [(own.name, own.device) for own in steps.own]
    assert found == [("fastrnn", "cpu"), ("fastrnn.jit", "cpu")]
    assert steps.notes == ("CUDA: streams run on the CPU so far",)


def test_what_takes_minutes_takes_part_in_suite_cells_or_where_it_is_named():
    slow = "torch.compile"
    quick = cases_of("quick", ("MinGRU",))
    field = command.field("cpu", None, quick)
    assert slow not in {peer.name for peer in field.peers}
    assert f"without {slow}, which takes minutes" in field.notes
    for cases, peers in ((cases_of("cells", ("MinGRU",)), None), (quick, slow)):
        assert slow in {peer.name for peer in command.field("cpu", peers, cases).peers}
    assert not any(slow in note for note in command.field("cpu", None, cases_of("quick")).notes)


@pytest.mark.smoke
def test_info_lists_what_there_is():
    result = run("info")
    assert result.exit_code == 0, result.output
    for name in ("fastrnn", "numba", "llvmlite", "numpy", "kernel cache", "CPU model", "threads"):
        assert name in result.stdout
    assert fastrnn.__version__ in result.stdout
    flat = "".join(result.stdout.split())
    for found in fastrnn.devices():
        assert "".join(found.reason.split()) in flat
        for text in found.details.values():
            assert "".join(text.split()) in flat


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastrnn", "--version"], capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.stderr) == (f"fastrnn {fastrnn.__version__}\n", "")
    done = subprocess.run(
        [sys.executable, "-m", "fastrnn", "none"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: python -m fastrnn [OPTIONS] COMMAND")


def test_version_and_help():
    assert run("--version").stdout == f"fastrnn {fastrnn.__version__}\n"
    for arguments in (["--help"], ["bench", "--help"], ["info", "--help"]):
        result = run(*arguments)
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage:")
        assert "FAILED" not in result.stdout
