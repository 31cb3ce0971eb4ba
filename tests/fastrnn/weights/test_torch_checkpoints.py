"""Checkpoints of torch's in the forms that published ones have, made alike: small and random.

torch's own modules say what is right.
"""

import argparse
import logging
import pathlib
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.weight_norm import weight_norm

import fastrnn
from cases import TOLERANCE, assert_close
from fastrnn import weights

I, H = 3, 5


def model(seed=0):
    """An encoder with a front that fastrnn has not, and a head."""
    torch.manual_seed(seed)
    return torch.nn.ModuleDict(
        {
            "conv": torch.nn.Conv1d(1, I, 3),
            "rnn": torch.nn.LSTM(I, H, 2, bidirectional=True),
            "fc": torch.nn.Linear(2 * H, 1),
        }
    )


def right(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x))[0].numpy()


def check(layer, module):
    """Values of a whole call and of a stream."""
    x = np.random.default_rng(0).standard_normal((6, 1, I), dtype=np.float32)
    wanted = right(module, x)
    assert_close(layer(x)[0], wanted, TOLERANCE["float32"])
    if not getattr(layer, "bidirectional", False):
        stream = layer.stream()
        found = np.stack([stream.step(row[0]).copy() for row in x])
        assert_close(found, wanted[:, 0], TOLERANCE["float32"])


def optimizer(modules):
    made = torch.optim.Adam(modules.parameters())
    for parameter in modules.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    return made.state_dict()


NESTED = {
    "state_dict": lambda s, o: {"state_dict": s, "optimizer": o, "epoch": 3},
    "model": lambda s, o: {"model": s, "optimizer": o, "best": torch.tensor(0.5)},
    "model_state": lambda s, o: {"model_state": s, "optimizer_state": o, "losses": [1.0, 2.0]},
    "net": lambda s, o: {"epoch": 1, "net": s},
    "generator": lambda s, o: {"generator": s, "optim_g": o, "steps": 10},
    "ema": lambda s, o: {"ema": {"shadow": s, "decay": 0.9}},
    "deep": lambda s, o: {"a": {"b": {"c": OrderedDict(s)}}, "args": {"lr": 0.1}},
}


@pytest.mark.smoke
@pytest.mark.parametrize("form", NESTED)
def test_prefixes_descend_into_dictionaries(form, tmp_path):
    modules, path = model(), tmp_path / "checkpoint.pt"
    torch.save(NESTED[form](modules.state_dict(), optimizer(modules)), path)
    check(fastrnn.load(path, prefix="rnn"), modules["rnn"])
    with pytest.raises(ValueError, match=r"(?s)checkpoint\.pt.*prefix takes.*'rnn', LSTM 3 → 5, 2"):
        fastrnn.load(path)
    with pytest.raises(ValueError, match=r"begin with 'lstm\.'; prefix.*'rnn', LSTM.*'fc', Linear"):
        fastrnn.load(path, prefix="lstm")
    with pytest.raises(ValueError, match=r"what else there is: 'conv' \(weight \(3, 1, 3\), bias"):
        fastrnn.load(path)


@pytest.mark.parametrize("form", ["model", "ema", "deep"])
def test_the_whole_path_reaches_a_module_too(form, tmp_path):
    modules = model()
    torch.save(NESTED[form](modules.state_dict(), {}), tmp_path / "a.pt")
    path = {"model": "model", "ema": "ema.shadow", "deep": "a.b.c"}[form]
    check(fastrnn.load(tmp_path / "a.pt", prefix=f"{path}.rnn"), modules["rnn"])


def test_a_nested_state_dict_that_is_a_model_loads_whole(tmp_path):
    gru = torch.nn.GRU(I, H)
    torch.save({"model": gru.state_dict(), "epoch": 3}, tmp_path / "a.pt")
    check(fastrnn.load(tmp_path / "a.pt"), gru)


def test_of_several_state_dicts_one_is_named(tmp_path):
    first, second = model(0), model(1)
    found = {"generator": first.state_dict(), "ema": second.state_dict()}
    torch.save(found, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"several state dicts \('generator', 'ema'\).*'ema\.rnn'"):
        fastrnn.load(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"has 'rnn' in 'generator\.rnn', 'ema\.rnn'"):
        fastrnn.load(tmp_path / "a.pt", prefix="rnn")
    check(fastrnn.load(tmp_path / "a.pt", prefix="ema.rnn"), second["rnn"])


def test_what_stands_beside_the_usual_state_dict_is_told(tmp_path, caplog):
    first, second = torch.nn.GRU(I, H), torch.nn.GRU(I, H)
    found = {"state_dict": first.state_dict(), "ema": second.state_dict()}
    torch.save(found, tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING, "fastrnn"):
        check(fastrnn.load(tmp_path / "a.pt"), first)
    (record,) = caplog.records
    assert record.getMessage().endswith("which were left out; prefix takes one: ema")
    check(fastrnn.load(tmp_path / "a.pt", prefix="ema"), second)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.encoder."])
def test_what_wrappers_put_before_names_is_offered(prefix, tmp_path):
    """DataParallel, torch.compile, and a module inside of another."""
    modules = model()
    named = {f"{prefix}{name}": value for name, value in modules.state_dict().items()}
    torch.save(named, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"prefix takes .*'{prefix}rnn', LSTM"):
        fastrnn.load(tmp_path / "a.pt", prefix="rnn")
    check(fastrnn.load(tmp_path / "a.pt", prefix=f"{prefix}rnn"), modules["rnn"])


class Options(dict):
    """As Lightning's own dictionary of hyper-parameters."""


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (argparse.Namespace(lr=0.1, layers=[1, 2]), "argparse.Namespace"),
        (Options(lr=0.1), "test_torch_checkpoints.Options"),
        ({"folder": pathlib.PurePosixPath("a/b")}, "pathlib.PurePosixPath"),
        ({"lr": np.float64(0.1)}, "multiarray.scalar"),
    ],
)
def test_lightnings_checkpoints(options, name, tmp_path, caplog):
    """What else they name is told, and the weights are read."""
    modules, path = model(), tmp_path / "lightning.ckpt"
    torch.save(
        {
            "epoch": 1, "pytorch-lightning_version": "2.4.0", "state_dict": modules.state_dict(),
            "optimizer_states": [optimizer(modules)], "lr_schedulers": [],
            "hyper_parameters": options,
        },
        path,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "fastrnn"):
        layer = fastrnn.load(path, prefix="rnn")
    check(layer, modules["rnn"])
    (record,) = caplog.records
    assert name in record.getMessage()
    assert "hyper_parameters" in record.getMessage()


def test_a_whole_pickled_module_says_what_to_do(tmp_path):
    torch.save(torch.nn.LSTM(I, H), tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a pickled torch\.nn\.modules\.rnn\.LSTM.*state_dict\(\)"
    ):
        fastrnn.load(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("prefix", ["", "rnn"])
def test_torchscript_is_named_as_such(prefix, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.LSTM(I, H)), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"TorchScript archive.*torch\.jit\.load.*state_dict"):
        fastrnn.load(tmp_path / "a.pt", prefix=prefix)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_named_as_such(tmp_path):
    program = torch.export.export(torch.nn.Linear(I, H), (torch.zeros(2, I),))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(ValueError, match=r"a\.pt2.*torch\.export.*state_dict"):
        fastrnn.load(tmp_path / "a.pt2")


def normed(module, way):
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if way == "old":
            weight_norm(module, name)
        elif way == "old-whole":
            weight_norm(module, name, dim=None)
        elif way == "columns":
            weight_norm(module, name, dim=1)
        elif way == "new":
            parametrizations.weight_norm(module, name)
        elif way == "pruned":
            prune.random_unstructured(module, name, amount=0.4)
        elif way == "spectral":
            parametrizations.spectral_norm(module, name)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("way", ["old", "old-whole", "columns", "new", "pruned"])
def test_weights_in_parts_are_put_together(way, suffix, tmp_path):
    torch.manual_seed(0)
    module = normed(torch.nn.LSTM(I, H), way).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("_g", "original0")):
                parameter.mul_(1.5)
    named = {f"enc.rnn.{name}": value for name, value in module.state_dict().items()}
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save(named, path)
    else:
        safetensors.torch.save_file({n: v.contiguous() for n, v in named.items()}, path)
    x = torch.zeros(1, 1, I)
    module(x)  # hooks compute the weights now
    for layer in (fastrnn.load(path), fastrnn.load(path, prefix="enc.rnn")):
        check(layer, module)


@pytest.mark.filterwarnings("ignore")
def test_another_parametrization_is_refused_by_name(tmp_path):
    torch.save(normed(torch.nn.LSTM(I, H), "spectral").state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"weight_ih_l0 is parametrized.*remove_parametrizations"):
        fastrnn.load(tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_any_float_type_are_taken(dtype):
    module = torch.nn.LSTM(I, H).to(dtype)
    layer = fastrnn.LSTM(I, H, seed=0)
    layer.load_state_dict(module.state_dict())
    for name, value in module.state_dict().items():
        wanted = value.float().numpy()
        np.testing.assert_array_equal(layer.parameters[name], wanted)


def test_arrays_of_bfloat16_are_taken():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    layer, other = fastrnn.GRU(I, H, seed=0), fastrnn.GRU(I, H, seed=1)
    state = {n: v.astype(ml_dtypes.bfloat16) for n, v in other.state_dict().items()}
    layer.load_state_dict(state)
    for name, value in state.items():
        np.testing.assert_array_equal(layer.parameters[name], value.astype(np.float32))


def test_modules_in_safetensors_are_offered(tmp_path):
    modules, path = model(), tmp_path / "a.safetensors"
    safetensors.torch.save_file(modules.state_dict(), path)
    for prefix in ("", "lstm"):
        with pytest.raises(ValueError, match=r"prefix takes .*'rnn', LSTM 3 → 5.*'conv'"):
            fastrnn.load(path, prefix=prefix)
    check(fastrnn.load(path, prefix="rnn"), modules["rnn"])


def test_arrays_of_numpy_under_shorter_names(tmp_path):
    """As g2p_en's: enc_w_ih, enc_b_hh."""
    cell = torch.nn.GRUCell(I, H)
    named = {
        f"enc_{name.replace('weight', 'w').replace('bias', 'b')}": value.numpy()
        for name, value in cell.state_dict().items()
    }
    np.savez(tmp_path / "a.npz", **named, enc_emb=np.ones((7, I), np.float32))
    found = fastrnn.load(tmp_path / "a.npz", prefix="enc")
    x = np.random.default_rng(0).standard_normal((2, I), dtype=np.float32)
    with torch.no_grad():
        wanted = cell(torch.from_numpy(x)).numpy()
    assert_close(found(x), wanted, TOLERANCE["float32"])
    with pytest.raises(ValueError, match=r"prefix takes .*'enc', GRUCell 3 → 5"):
        fastrnn.load(tmp_path / "a.npz", prefix="dec")


def test_published_g2p(data):
    """A whole published model: its encoder and its decoder, and the output layer."""
    path = data / "g2p" / "checkpoint20.npz"
    for prefix in ("enc", "dec"):
        assert repr(fastrnn.load(path, prefix=prefix)).startswith("GRUCell(input_size=256")
    assert fastrnn.load(path, prefix="fc").out_features == 74
    with pytest.raises(ValueError, match=r"prefix takes .*'enc', GRUCell 256 → 256"):
        fastrnn.load(path)


def test_one_module_of_a_sequential_of_ours(tmp_path):
    made = fastrnn.Sequential(fastrnn.GRU(I, H, seed=0), fastrnn.Linear(H, 2, seed=1))
    for suffix in (".safetensors", ".pt", ".onnx", ".keras", ".json"):
        path = tmp_path / f"a{suffix}"
        weights.save(made, path)
        names = {".keras": ("gru", "dense")}.get(suffix, ("0", "1"))
        for name, module in zip(names, made.modules, strict=True):
            found = fastrnn.load(path, prefix=name)
            for key, value in module.parameters.items():
                np.testing.assert_allclose(found.parameters[key], value, rtol=1e-6)
        with pytest.raises(
            ValueError, match=rf"a\{suffix}.*prefix takes .*'{names[0]}', GRU 3 → 5"
        ):
            fastrnn.load(path, prefix="other")


def test_one_layer_of_several_in_hastes_layout(tmp_path):
    from fastrnn.weights import haste

    made = [fastrnn.LSTM(I, H, seed=0), fastrnn.GRU(H, H, seed=1)]
    arrays = {
        f"{name}.{key}": value
        for name, layer in zip(("first", "second"), made, strict=True)
        for key, value in haste.arrays_of(layer).items()
    }
    np.savez(tmp_path / "a.npz", **arrays)
    for name, layer in zip(("first", "second"), made, strict=True):
        found = fastrnn.load(tmp_path / "a.npz", prefix=name)
        np.testing.assert_array_equal(
            found.parameters["weight_hh_l0"], layer.parameters["weight_hh_l0"]
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "a", "value": 3}', "no model of RTNeural's: it has name, value, wanted 'lay"),
        (
            '{"words": [[1.0]], "letters": ["a"]}',
            "no model of RTNeural's: it has words, letters, wan",
        ),
        ('{"version": "0.5.2", "weights": [1.0]}', "no model of RTNeural's: it has version"),
        (
            '{"version": "0.5.2", "architecture": "LSTM", "config": {}, "weights": [1.0]}',
            r"a model of NeuralAmpModeler's \(LSTM\).*say of='nam'",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".data"])
def test_json_of_other_programs_is_named(suffix, content, message, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"model\{suffix}' (is )?{message}"):
        fastrnn.load(path)
