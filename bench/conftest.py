"""Options of `pytest bench`: one contender to a run, as a second one's threads would disturb it."""

import json
from pathlib import Path

import pytest

import fastrnn
from fastrnn.bench.cases import DTYPES, SUITES, Case, Shape, cases_of
from fastrnn.bench.contenders import OWN, PEERS

CONTENDERS = {OWN.name: OWN, **PEERS}


def pytest_addoption(parser):
    parser.addoption("--suite", choices=list(SUITES), default="quick")
    parser.addoption("--contender", choices=list(CONTENDERS), default=OWN.name)
    parser.addoption("--dtype", choices=DTYPES, default="float32")


@pytest.fixture(scope="session")
def contender(request):
    return CONTENDERS[request.config.getoption("--contender")]


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        config = metafunc.config
        contender = CONTENDERS[config.getoption("--contender")]
        cases = cases_of(config.getoption("--suite"), dtype=config.getoption("--dtype"))
        metafunc.parametrize("case", [case for case in cases if contender.takes(case)], ids=str)


def shape_of(row):
    return Shape(row["T"], row["B"], row["I"], row["H"])


def pytest_terminal_summary(terminalreporter, config):
    """Medians beside those of the last committed run of the suite, where it is this machine's."""
    session = getattr(config, "_benchmarksession", None)
    suite, dtype = config.getoption("--suite"), config.getoption("--dtype")
    name = suite if dtype == "float32" else f"{suite}-{dtype}"
    files = sorted((Path(__file__).parent / "results").glob(f"*/{name}.json"))
    if session is None or not session.benchmarks or not files:
        return
    runs = {file: json.loads(file.read_text(encoding="utf-8")) for file in files}
    cpu = next(device for device in fastrnn.devices() if device.name == "cpu").details["model"]
    write = terminalreporter.write_line
    same = [file for file, run in runs.items() if run["machine"]["cpu"] == cpu]
    if not same:
        terminalreporter.section("beside no committed run")
        others = ", ".join(sorted({run["machine"]["cpu"] for run in runs.values()}))
        write(f"committed from {others}, this is {cpu}: times do not compare")
        return
    committed = runs[same[0]]
    terminalreporter.section(f"beside {same[0].relative_to(Path(__file__).parents[1])}")
    before = {
        str(Case(row["suite"], row["cell"], shape_of(row), row["pass"], row["dtype"])): row
        for row in committed["rows"]
        if row["contender"] == config.getoption("--contender") and row["error"] is None
    }
    for done in session.benchmarks:
        row = before.get(done.param)
        if row is not None:
            was, now = row["median_s"], done.stats.median
            write(
                f"{done.param:34} {was * 1e3:9.3f} ms  now {now * 1e3:9.3f} ms  {was / now:5.2f}x"
            )
