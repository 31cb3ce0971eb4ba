"""torch.export keeps fastrnn's operators; what is for other runtimes is made of torch's own."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch
from torch.export import Dim
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn.torch
from fastrnn.torch import packed
from graphs_torch import Model, assert_equal
from own_torch import torch_itself

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
T, B, I, H = 4, 3, 5, 6
SIZES = {"x": {0: Dim("B"), 1: Dim("T")}}
LOADED = """
import sys, torch, torch._dynamo.variables.builder
import fastrnn.torch
program = torch.export.load(sys.argv[1] + "/program.pt2")
x, wanted, gradient = torch.load(sys.argv[1] + "/wanted.pt")
module = program.module()
y = module(x)[0]
assert torch.equal(y, wanted)
y.sum().backward()
assert torch.equal(module.get_parameter("recurrent.weight_hh_l0").grad, gradient)
layer = torch.compile(fastrnn.torch.GRU(3, 4), backend="eager", fullgraph=True)
assert layer(torch.zeros(2, 1, 3))[0].shape == (2, 1, 4)
"""


def called(program):
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("strict", [False, True])
def test_programs_hold_the_operator(strict):
    model = Model(fastrnn.torch.LSTM(I, H, 2, batch_first=True))
    example = (torch.randn(B, T, I),)
    program = torch.export.export(model, example, dynamic_shapes=SIZES, strict=strict)
    x = torch.randn(2, 7, I)
    for made in (program, program.run_decompositions(), copy.deepcopy(program)):
        assert {name for name in called(made) if "fastrnn" in name} == {"fastrnn.forward.default"}
        assert not any("lstm" in name for name in called(made))
        (node,) = [node for node in made.graph.nodes if "fastrnn" in str(node.target)]
        assert [one for one in node.args if isinstance(one, str)] in (["LSTM"], ["LSTM", ""])
        assert_equal(made.module()(x), model(x))


def test_a_program_runs_in_another_process(tmp_path):
    """With gradients; there the tracer was imported before fastrnn."""
    model = Model(fastrnn.torch.LSTM(I, H, 2, batch_first=True))
    program = torch.export.export(model, (torch.randn(B, T, I),), dynamic_shapes=SIZES)
    x = torch.randn(2, 7, I)
    wanted = model(x)[0]
    wanted.sum().backward()
    torch.export.save(program, tmp_path / "program.pt2")
    gradient = model.recurrent.weight_hh_l0.grad
    torch.save((x, wanted.detach(), gradient), tmp_path / "wanted.pt")
    command = [sys.executable, "-c", LOADED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_sorted", [True, False])
def test_packed_sequences_are_exported(is_sorted):
    """Which torch's own layers cannot be."""
    model, lengths = Model(fastrnn.torch.GRU(I, H)), [4, 2, 1] if is_sorted else [2, 4, 1]
    rows = pack_padded_sequence(torch.randn(T, B, I), lengths, enforce_sorted=is_sorted)
    program = torch.export.export(model, (rows,))
    assert_equal(program.module()(rows), model(rows))


def test_autocast_leaves_an_exported_layer_in_float32():
    layer = fastrnn.torch.LSTM(I, H)
    x = torch.randn(T, B, I)
    module = torch.export.export(layer, (x,)).module()
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x.bfloat16())[0]
    assert torch.equal(found, layer(x.bfloat16().float())[0])


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_a_module_of_lower_precision_is_exported(low, monkeypatch):
    """Its parameters stay in their type, and are packed once, under autocast too."""
    packings, copies = [], packed.Copies
    layer = fastrnn.torch.GRU(I, H).to(low)
    x = torch.randn(T, B, I).to(low)
    program = torch.export.export(layer, (x,))
    assert {one.dtype for one in program.state_dict.values()} == {low}
    module = program.module()
    with torch.no_grad():
        wanted = layer(x)
    monkeypatch.setattr(packed, "Copies", lambda *given: packings.append(1) or copies(*given))
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", low, enabled=enabled):
            for _ in range(2):
                assert_equal(module(x), wanted)
    assert len(packings) == 1


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")  # of torch's RNNs
def test_an_export_to_onnx_has_torchs_operations(monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with torch_itself():
        program = torch.export.export(fastrnn.torch.GRU(I, H), (torch.randn(T, B, I),))
    assert not any("fastrnn" in name for name in called(program))


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler of C++")
def test_ahead_of_time(tmp_path):
    """A package of AOTInductor's runs the operator, in a process that has it."""
    layer = fastrnn.torch.LSTM(I, H, batch_first=True)
    sizes = {"input": SIZES["x"], "hx": None}
    program = torch.export.export(layer, (torch.randn(B, T, I), None), dynamic_shapes=sizes)
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "a.pt2"))
    x = torch.randn(2, 7, I)
    assert torch.equal(torch._inductor.aoti_load_package(path)(x)[0], layer(x)[0])
