"""Kernels that came with the package are taken where they fit, and nowhere else."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from numba import njit, typeof
from numba.core import event

from fastrnn_kernels.cache import disk, keys, precompiled
from fastrnn_kernels.cpu.isa import host, levels
from fastrnn_kernels.cpu.isa.instruction_set import AMX, AVX2, AVX512, AVX512_BF16, NEON, SSE2

#: Compiles a kernel for another CPU, and does not run it.
PROGRAM = """
import sys
from fastrnn_kernels.cache import foreign
foreign.enter(sys.argv[1])
from fastrnn_kernels.cache import disk
def double(x, *more):
    return x + x
assert disk.kernel("double")(double)(21, 1.5, 2) == 0, "it was run"
"""
#: This host's CPU, as a level.
HERE = precompiled.Level("here", host.NAME, ",".join(f"+{name}" for name in sorted(host.FEATURES)))


def compile_for(level, folder, triple=""):
    """Compile a small kernel for a level, and put it where kernels of that level lie."""
    cache = folder.parent / f"cache-{level.name}"
    environment = {
        "FASTRNN_CACHE_DIR": str(cache),
        "NUMBA_CPU_NAME": level.cpu,
        "NUMBA_CPU_FEATURES": level.features,
    }
    subprocess.run(
        [sys.executable, "-c", PROGRAM, triple], env={**os.environ, **environment}, check=True
    )
    place = folder / level.name / keys.portable()
    place.mkdir(parents=True)
    for file in cache.glob("*/*.nbc"):
        file.rename(place / file.name)
    return place


@pytest.fixture(scope="module")
def came(tmp_path_factory):
    """A folder of precompiled kernels, with one for this host."""
    folder = tmp_path_factory.mktemp("package") / "precompiled"
    compile_for(HERE, folder)
    return folder


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Have these levels' kernels of a folder be what came, and an empty cache of the user's."""

    def used(folder, *offered):
        monkeypatch.setattr(precompiled, "FOLDER", folder)
        monkeypatch.setattr(precompiled, "_levels", [lambda: offered])
        monkeypatch.setattr(precompiled, "_left_out", False)
        precompiled.present.cache_clear()

    monkeypatch.setattr(disk, "cache_folder", lambda: tmp_path / "user")
    yield used
    monkeypatch.undo()
    precompiled.present.cache_clear()


def compiled():
    """How many functions are compiled for a call of the kernel, whose result is right."""

    def double(x, *more):
        return x + x

    with event.install_recorder("numba:compile") as recorder:
        assert disk.kernel("double")(double)(21, 1.5, 2) == 42
    return sum(happening.is_start for _, happening in recorder.buffer)


def test_nothing_is_compiled_that_came(came, use, tmp_path, caplog):
    use(came, HERE)
    before = sorted(came.rglob("*"))
    assert compiled() == 0
    assert sorted(came.rglob("*")) == before
    assert not (tmp_path / "user").exists()
    assert precompiled.words() == "for here"
    assert not caplog.messages


def test_one_that_came_is_called_in_compiled_code(came, use):
    """It is without LLVM's code, which else is linked into who calls it."""
    use(came, HERE)

    def double(x, *more):
        return x + x

    kernel = disk.kernel("double")(double)
    assert kernel(21, 1.5, 2) == 42
    assert njit(lambda x: kernel(x, 1.5, 2) + 1)(20) == 41


def test_whether_a_kernel_is_at_hand(came, use, tmp_path):
    kinds = tuple(map(typeof, (21, (1.5, 2))))
    use(tmp_path / "absent", HERE)
    assert not disk.at_hand("double", kinds)
    use(came, HERE)
    assert disk.at_hand("double", kinds)
    assert not disk.at_hand("double", kinds[:1])
    assert not disk.at_hand("triple", kinds)


def test_a_user_without_a_home_has_them(came, use, monkeypatch):
    use(came, HERE)
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    assert compiled() == 0


def test_a_folder_that_cannot_be_written_does(came, use):
    use(came, HERE)
    folders = [came, *(path for path in came.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert compiled() == 0
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_none_came(use, tmp_path):
    use(tmp_path / "absent", HERE)
    assert compiled() > 0
    assert compiled() == 0, "the user's cache has it now"
    assert precompiled.words().startswith("none")


def test_a_file_in_the_folders_place(use, tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    use(tmp_path / "file", HERE)
    assert compiled() > 0


@pytest.mark.parametrize("refused", ["precompiled", "here"])
def test_a_folder_that_may_not_be_read(came, use, monkeypatch, refused):
    looked = Path.is_dir

    def is_dir(path):
        if refused in path.parts[-2:]:
            raise PermissionError(f"{path} is not yours")
        return looked(path)

    use(came, HERE)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", is_dir)
        assert precompiled.present() == ()
        assert precompiled.words() != "for here"
    assert compiled() > 0


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-1] + b"\0", bytes])
def test_damaged_ones_are_compiled(came, use, tmp_path, damage):
    (kept,) = came.rglob("*.nbc")
    data = kept.read_bytes()
    file = tmp_path / "package" / kept.relative_to(came)
    file.parent.mkdir(parents=True)
    file.write_bytes(damage(data) if damage is not bytes else b"")
    use(tmp_path / "package", HERE)
    assert compiled() > 0


def test_the_users_own_come_first(came, use, tmp_path):
    use(tmp_path / "absent", HERE)
    compiled()
    (own,) = (tmp_path / "user").glob("*.nbc")
    os.utime(own.parent, (0, 0))
    disk._use.cache_clear()
    use(came, HERE)
    assert compiled() == 0
    assert own.parent.stat().st_mtime > 0, "the user's file was not read"


@pytest.mark.parametrize("what", ["numba", "llvmlite", "numpy"])
def test_those_of_other_versions_are_left(came, use, monkeypatch, what):
    use(came, HERE)
    monkeypatch.setattr(getattr(keys, what), "__version__", "0.0")
    assert compiled() > 0
    assert precompiled.words().startswith("for other versions")


def test_versions_that_change_no_code_are_none(monkeypatch):
    key, exact = keys.portable(), keys.exact()
    major = keys.numpy.__version__.partition(".")[0]
    monkeypatch.setattr(keys.numpy, "__version__", f"{major}.999.0")
    monkeypatch.setattr(keys.platform, "python_version", lambda: "3.999")
    assert keys.portable() == key
    assert keys.exact() != exact


def test_kernels_of_a_level_run_here(use, tmp_path):
    """Compiled for less than this host has, and not run where they were compiled."""
    if not levels.fitting():
        pytest.skip("no level has this host's instruction set")
    level = levels.fitting()[0]
    compile_for(level, tmp_path / "precompiled")
    use(tmp_path / "precompiled", level)
    assert compiled() == 0
    use(tmp_path / "precompiled")
    assert compiled() > 0, "a level that does not fit was taken"
    assert precompiled.words() == "for other CPUs"


def test_kernels_for_another_kind_of_machine(use, tmp_path):
    (level,) = (one.told for one in levels.LEVELS if one.name == "aarch64")
    place = compile_for(level, tmp_path / "precompiled", "aarch64-unknown-linux-gnu")
    (file,) = place.glob("*.nbc")
    _, kind, (code, _) = pickle.loads(file.read_bytes()[disk._DIGEST_BYTES :])[0]
    aarch64, machine_at = 183, 18  # of ELF's header
    assert kind == "object"
    assert int.from_bytes(code[machine_at : machine_at + 2], "little") == aarch64


def test_code_that_is_slower_than_this_hosts_own_is_said_once(came, use, monkeypatch, caplog):
    monkeypatch.setattr(levels, "HOST", replace(host.HOST, fetch_ahead=4096))
    use(came, HERE._replace(lacks=levels.LEVELS[0].told.lacks))
    assert compiled() == 0
    assert compiled() == 0
    (said,) = caplog.messages
    assert "do not fetch weights ahead" in said
    assert "`fastrnn warmup --exact`" in said


def test_what_came_is_left_out_where_exact_code_is_asked_for(came, use):
    use(came, HERE)
    precompiled.leave_out()
    assert compiled() > 0
    assert compiled() == 0, "the user's own"


V3, V4 = {*levels._V3, "64bit"}, {*levels._V4, "64bit"}


@pytest.mark.parametrize(
    ("isa", "features", "wanted"),
    [
        (AVX2, V3, ["x86-64-v3"]),
        (AVX2, V3 - {"movbe"}, []),
        (AVX512, V4, ["x86-64-v4"]),
        (AVX512, V4 - {"avx512cd"}, []),
        (AVX512_BF16, V4 | {"avx512bf16"}, ["x86-64-v4", "x86-64-v4-bf16"]),
        (AMX, V4 | {"avx512bf16", "amx-tile"}, ["x86-64-v4", "x86-64-v4-bf16"]),
        (replace(AVX512, fetch_ahead=4096), V4, ["x86-64-v4"]),
        (SSE2, {"sse2"}, []),
        (NEON, {"neon", "fp-armv8", "lse"}, ["aarch64"]),
    ],
)
def test_levels_that_a_host_runs(monkeypatch, isa, features, wanted):
    monkeypatch.setattr(levels, "HOST", isa)
    monkeypatch.setattr(levels, "FEATURES", frozenset(features))
    assert [level.name for level in levels.fitting.__wrapped__()] == wanted


def test_a_level_is_found_as_its_instruction_set():
    """What a process finds that compiles for a level is what the level's row says."""
    for level in levels.LEVELS:
        found = host._found(frozenset(level.features), level.told.cpu)
        assert found.name == level.isa.name
        assert levels._alike(found, level.isa)
