"""What a wheel's kernels are compiled by; that they are found is tested with the cache."""

import sys

import pytest

from fastrnn.tools import precompile
from fastrnn_kernels.cpu.isa.levels import LEVELS

NAMES = [level.name for level in LEVELS]


def test_a_level_that_is_unknown_is_told_before_anything_is_compiled(tmp_path):
    with pytest.raises(ValueError, match=r"level is 'x86-64-v9', wanted one of .*aarch64"):
        precompile.precompile(tmp_path, [NAMES[0], "x86-64-v9"])
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_says_that_fails_is_told(tmp_path):
    levels = precompile.native()[:1] or NAMES[:1]
    with pytest.raises(RuntimeError, match=r"qrnn float32 for (.*\n)*.*no cell 'qrnn'"):
        precompile.precompile(tmp_path, levels, cells=[["qrnn"]], dtypes=["float32"])
    assert list(tmp_path.rglob("*.nbc")) == []


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_wheel_tells_its_python_and_machine(monkeypatch, machine):
    monkeypatch.setattr(precompile.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(precompile.sysconfig, "get_platform", lambda: "linux-x86_64")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = precompile.tag([level.name for level in LEVELS if level.machine == machine])
    assert tag.startswith(f"{python}-{python}")
    assert tag.endswith(f"-linux_{machine}")


def test_a_wheel_is_for_one_machine():
    with pytest.raises(ValueError, match="levels are for aarch64, x86_64"):
        precompile.tag(NAMES)


def test_another_machines_kernels_are_compiled_on_linux_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(precompile.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(precompile.sys, "platform", "darwin")
    with pytest.raises(ValueError, match="aarch64 is compiled on aarch64, or on Linux"):
        precompile.precompile(tmp_path, ["aarch64"])


def test_a_machine_without_levels_compiles_none(monkeypatch, tmp_path):
    monkeypatch.setattr(precompile.platform, "machine", lambda: "s390x")
    with pytest.raises(ValueError, match="levels are for no machine"):
        precompile.main(str(tmp_path))
