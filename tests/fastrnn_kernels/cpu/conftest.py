"""Tests of what kernels are made of run for every instruction set that this host has."""

import pytest

from fastrnn_kernels.cpu.isa import host
from fastrnn_kernels.cpu.isa.instruction_set import EVERY

#: The host's own, and the others that it can execute.
SETS = {"host": host.HOST} | {
    isa.name: isa for isa in EVERY if host.runs_here(isa) and isa.name != host.HOST.name
}


@pytest.fixture(params=SETS)
def instruction_set(request):
    """What is compiled meanwhile is for this one."""
    with host.compiling_for(SETS[request.param]):
        yield SETS[request.param]
