"""The compilers for other machines, which the extra `test-compilers` installs.

Tests that need them carry the marker `compilers`. Without them they are skipped, and say so; where
FASTRNN_TEST_COMPILERS is set, as in `.ci/run`, they fail.
"""

import importlib
import os

import pytest


def need(*modules: str) -> None:
    """Skip the test, or the file, that calls this where one of these cannot be imported."""
    __tracebackhide__ = True  # so that what is skipped is named, not this line
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing(str(error))


def missing(what: str) -> None:
    """Skip the test, or the file, that calls this, for something that is not here."""
    __tracebackhide__ = True
    reason = f"{what}: pip install -e '.[test-compilers]'"
    if os.environ.get("FASTRNN_TEST_COMPILERS"):
        raise RuntimeError(reason)
    pytest.skip(reason, allow_module_level=True)
