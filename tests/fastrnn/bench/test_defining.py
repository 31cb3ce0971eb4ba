"""Defining and running a cell for the first time, and in a second process."""

import subprocess

import pytest

from fastrnn.bench.defining import measure


def test_a_second_process_compiles_nothing():
    found = measure("MinGRU")
    assert found["compiled"] > 0
    assert found["compiled_again"] == 0
    assert 0 < found["define_s"] < found["first_s"]
    assert 0 < found["again_s"] < found["first_s"]


def test_a_cell_that_is_none_ends_it():
    with pytest.raises(subprocess.CalledProcessError):
        measure("no_such_module:Own")
