"""Compiling ahead: what it compiles, what it says, and that nothing is left to compile after."""

import logging
import time

import numpy as np
import pytest
from click.testing import CliRunner
from numba import types
from numba.core import event
from numba.extending import intrinsic

import fastrnn
from fastrnn.cli import main
from fastrnn_kernels.cache import announce, disk, precompiled
from fastrnn_kernels.cells.registry import CELLS
from fastrnn_kernels.cpu.sequence import backward, forward
from fastrnn_kernels.cpu.stream import program


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_nothing_is_left_to_compile(dtype):
    seen = []
    fastrnn.warmup(["gru", "lstm"], [dtype], done=lambda *what: seen.append(what))
    assert seen == [("gru", dtype), ("lstm", dtype)]
    with event.install_recorder("numba:compile") as recorder:
        for kind in (fastrnn.GRU, fastrnn.LSTM):
            layer = kind(3, 70, 2, bidirectional=True, dtype=dtype, seed=0)
            x = np.ones((4, 5, 3), layer.dtype)
            layer(x, lengths=[4, 0, 2, 1, 4])
            if dtype != "bfloat16":
                y, _, tape = layer.forward(x)
                layer.backward(tape, y)
    assert recorder.buffer == []


def test_wrong_names_are_refused_before_anything_is_done():
    seen = []
    with pytest.raises(ValueError, match="no cell 'qrnn': there are rnn"):
        fastrnn.warmup(["gru", "qrnn"], done=lambda *what: seen.append(what))
    with pytest.raises((TypeError, ValueError), match="dtypes is 'float8'"):
        fastrnn.warmup(["gru"], ["float32", "float8"], done=lambda *what: seen.append(what))
    assert seen == []


def test_the_command_says_what_it_did_and_where_it_is_kept():
    result = CliRunner().invoke(main.main, ["warmup", "--cell", "gru", "--inference"])
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert first.startswith("gru float32: ")
    assert last == f"kept in {disk.cache_folder()}"


def test_the_command_compiles_for_this_very_cpu(monkeypatch):
    monkeypatch.setattr(precompiled, "_left_out", False)
    result = CliRunner().invoke(main.main, ["warmup", "--cell", "gru", "--inference", "--exact"])
    assert result.exit_code == 0, result.output
    assert precompiled._left_out, "what came with the package would be loaded"


def test_the_command_says_so_where_all_has_come(monkeypatch, tmp_path):
    """Without a folder to keep anything in, too."""
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    monkeypatch.setattr(precompiled, "present", lambda: ["something"])
    result = CliRunner().invoke(main.main, ["warmup", "--cell", "gru", "--inference"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "nothing was left to compile"


def test_the_command_offers_every_cell():
    (option,) = (o for o in main.warmup.params if o.name == "cells")
    built_in = [name for name, entry in CELLS.items() if not entry.defined]
    assert f"of {', '.join(built_in)}," in option.help


def test_a_cache_that_cannot_be_kept_is_an_error(monkeypatch):
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    result = CliRunner().invoke(main.main, ["warmup", "--cell", "gru", "--inference"])
    assert result.exit_code == 1
    assert "FASTRNN_CACHE_DIR" in result.output


def compiled(seconds):
    """A kernel that no cache knows, and whose compilation takes at least so many seconds."""

    @intrinsic
    def itself(typingctx, x):
        time.sleep(seconds)
        return types.int64(x), lambda context, builder, signature, args: args[0]

    @disk.kernel("a-test's-kernel", "the test's kernel")
    def run(x):
        return x + itself(x)

    return run


@pytest.mark.parametrize(("seconds", "said"), [(0.6, True), (0.0, False)])
def test_long_compilation_is_announced(seconds, said, monkeypatch, caplog):
    monkeypatch.setattr(announce, "PATIENCE", 0.1 if said else 30)
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    run = compiled(seconds)
    with caplog.at_level(logging.WARNING, "fastrnn"):
        assert run(20) == 40
        time.sleep(0.1)
    found = [record.getMessage() for record in caplog.records]
    assert found == said * [
        "compiling the test's kernel for this CPU, once; `fastrnn warmup` does so ahead of time",
        "compiling the test's kernel for this CPU, once: 1 s",
    ]


def test_an_announcement_is_silenced_by_its_logger(monkeypatch, caplog):
    monkeypatch.setattr(announce, "PATIENCE", 0.1)
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    with caplog.at_level(logging.ERROR, "fastrnn"):
        assert compiled(0.3)(20) == 40
    assert not caplog.records


def test_kernels_have_names_that_one_can_read(monkeypatch):
    """Of a layer's passes, of a stream, of cells that are no one's usual ones."""
    said = []
    monkeypatch.setattr(disk, "announce", lambda dispatcher, words: said.append(words))
    monkeypatch.setattr(program, "_compiled", {})
    layer = fastrnn.GRU(3, 4, reset_after=False, dtype="float64")
    for module, name in ((forward, "_forward_job"), (backward, "_backward_job")):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)  # keeps nothing
    y, _, tape = layer.forward(np.zeros((2, 1, 3)))
    layer.backward(tape, y)
    fastrnn.Sequential(fastrnn.LSTM(2, 3, proj_size=2), fastrnn.Linear(2, 1)).stream()
    assert {
        "the gru-reset-before's forward pass",
        "the gru-reset-before's backward pass",
        "a stream's step (LSTM, 2 to 2; Linear, 2 to 1)",
    } <= set(said)


def test_the_command_compiles_the_streams_of_saved_models(tmp_path):
    fastrnn.GRU(3, 4, seed=0).save(tmp_path / "gru.safetensors")
    fastrnn.GRU(3, 4, bidirectional=True).save(tmp_path / "both.safetensors")
    done = CliRunner().invoke(main.main, ["warmup", str(tmp_path / "gru.safetensors")])
    assert done.exit_code == 0, done.output
    assert "gru.safetensors stream: " in done.output
    done = CliRunner().invoke(main.main, ["warmup", str(tmp_path / "both.safetensors")])
    assert done.exit_code == 1
    assert "both.safetensors: this GRU is bidirectional and cannot stream" in done.output
