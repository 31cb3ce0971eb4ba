"""Options of `pytest bench`: one contender to a run, as a second one's threads would disturb it."""

import pytest

from fastrnn.bench.cases import DTYPES, SUITES, plan
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
        cases = plan(config.getoption("--suite"), dtype=config.getoption("--dtype"))
        metafunc.parametrize("case", [case for case in cases if contender.takes(case)], ids=str)
