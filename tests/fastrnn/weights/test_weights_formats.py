"""Weights from and to other formats: what was written comes back, in every direction."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch

import fastrnn
import torch_twin
from cases import TOLERANCE, as_state, assert_close, make, problem
from fastrnn import weights
from fastrnn.tools.convert import command, convert
from pages import text

SUFFIXES = [suffix for name in weights.FORMATS for suffix in weights.suffixes_of(name)]
SUFFIXES[SUFFIXES.index(".h5")] = ".weights.h5"
#: A file of each format but fastrnn's own, of those that a layer by itself can be written in.
FOREIGN = [weights.suffixes_of(n)[0] for n in weights.FORMATS if n not in ("fastrnn", "nam")]
#: What there is to convert; I = 3, so that what is transposed by mistake does not fit.
MODELS = {
    "lstm": lambda: make("LSTM", 3, 5),
    "lstm-no-bias": lambda: make("LSTM", 3, 5, bias=False),
    "lstm-stack": lambda: make("LSTM", 3, 5, 3),
    "lstm-both": lambda: make("LSTM", 3, 5, 2, bidirectional=True, batch_first=True),
    "lstm-projected": lambda: make("LSTM", 3, 5, proj_size=2),
    "lstm-learned": lambda: make("LSTM", 3, 5, initial_state="learned"),
    "gru": lambda: make("GRU", 3, 5),
    "gru-both": lambda: make("GRU", 3, 5, bidirectional=True),
    "gru-before": lambda: make("GRU-reset-before", 3, 5),
    "gru-before-no-bias": lambda: make("GRU-reset-before", 3, 5, bias=False),
    "rnn": lambda: make("RNN-tanh", 3, 5, 2),
    "rnn-relu": lambda: make("RNN-relu", 3, 5),
    "sequential": lambda: fastrnn.Sequential(
        make("GRU", 3, 5), fastrnn.Linear(5, 4, activation="relu", seed=0),
        fastrnn.Linear(4, 2, bias=False, activation="sigmoid", seed=1),
    ),
}  # fmt: skip
#: What a format has no place for, and what it says then.
REFUSED = {
    ".pt": {"gru-before": "resets before", "gru-before-no-bias": "resets before"},
    ".keras": {"lstm-projected": "no projection"},
    ".onnx": {"lstm-projected": "no projection"},
    ".json": dict.fromkeys(
        ("lstm-both", "lstm-projected", "gru-both", "rnn", "rnn-relu"), "RTNeural has nothing that"
    ),
    ".npz": {
        **dict.fromkeys(("lstm-stack", "lstm-both", "lstm-projected", "gru-both"), "for one level"),
        **dict.fromkeys(("gru-before", "gru-before-no-bias"), "resets before"),
        **dict.fromkeys(("rnn", "rnn-relu", "sequential"), "Haste's layout has no"),
    },
}
for own in REFUSED.values():
    own["lstm-learned"] = "has initial_state='learned', which is for fastrnn's own format"
REFUSED[".nam"] = dict.fromkeys(MODELS, "NeuralAmpModeler's LSTM is one in one direction")
REFUSED |= {".pth": REFUSED[".pt"], ".weights.h5": REFUSED[".keras"]}


@pytest.mark.smoke
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_back(name, suffix, tmp_path):
    """From fastrnn's own file and back to it, with the same results."""
    source, target, last = (tmp_path / f"a{s}" for s in (".safetensors", suffix, "b.safetensors"))
    MODELS[name]().save(source)
    if name in REFUSED.get(suffix, {}):
        with pytest.raises(ValueError, match=REFUSED[suffix][name]):
            convert(source, target)
        assert target == source or not target.exists()
        return
    assert convert(source, target) <= TOLERANCE["float32"]
    if suffix not in (".pt", ".pth", ".weights.h5") or name in ("lstm", "gru"):
        assert convert(target, last) == 0


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("target", FOREIGN)
def test_every_direction(origin, target, tmp_path):
    first, second = tmp_path / f"first{origin}", tmp_path / f"second{target}"
    weights.save(make("LSTM", 3, 5), first)
    convert(first, second)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_users_are_told_of_every_format(suffix):
    assert f"`{suffix}`" in fastrnn.load.__doc__
    assert f"`{suffix}`" in text("docs/formats.md")
    assert suffix.removeprefix(".weights") in command.help


@pytest.mark.parametrize("name", weights.FORMATS)
def test_the_readme_has_every_format(name):
    sentence = text("README.md").partition("`fastrnn convert ")[2].partition("\n\n")[0]
    assert name in sentence.lower()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN-tanh"])
def test_torchs_own_modules(cell, dtype, tmp_path):
    """What torch saved gives torch's numbers, and torch loads what fastrnn wrote."""
    layer = make(cell, 3, 5, 2, bidirectional=True, dtype=dtype)
    module = torch_twin.twin(layer)
    torch.save(module.state_dict(), tmp_path / "theirs.pt")
    loaded = fastrnn.load(tmp_path / "theirs.pt")
    p = problem(layer, 4, 3)
    assert_close(loaded(p.x, as_state(p.state))[0], torch_twin.infer(module, p), TOLERANCE[dtype])
    weights.save(layer, tmp_path / "ours.pt")
    strict = module.load_state_dict(torch.load(tmp_path / "ours.pt", weights_only=True))
    assert not strict.missing_keys
    np.testing.assert_array_equal(
        module.weight_hh_l1_reverse.detach().numpy(), layer.parameters["weight_hh_l1_reverse"]
    )


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_of_torchs(kind, tmp_path):
    module = getattr(torch.nn, kind)(3, 5)
    torch.save(module.state_dict(), tmp_path / "theirs.pt")
    cell = fastrnn.load(tmp_path / "theirs.pt")
    x = np.random.default_rng(0).standard_normal((2, 3), dtype=np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x))
    state = cell(x)
    pairs = zip(state, wanted, strict=True) if kind == "LSTMCell" else [(state, wanted)]
    for array, right in pairs:
        assert_close(array, right.numpy(), TOLERANCE["float32"])
    weights.save(cell, tmp_path / "ours.pt")
    module.load_state_dict(torch.load(tmp_path / "ours.pt", weights_only=True))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projected_lstm_of_torchs(tmp_path):
    module = torch.nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True)
    torch.save(module.state_dict(), tmp_path / "theirs.pt")
    layer = fastrnn.load(tmp_path / "theirs.pt")
    assert (layer.hidden_size, layer.proj_size, layer.num_layers) == (5, 2, 2)
    p = problem(layer, 4, 3)
    y = layer(p.x, p.state)[0]
    assert_close(y, torch_twin.infer(module, p), TOLERANCE["float32"])


def test_a_module_inside_a_checkpoint(tmp_path):
    encoder = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 5), "conv": torch.nn.Conv1d(1, 2, 3)})
    path = tmp_path / "checkpoint.bin"  # of a name that says nothing
    torch.save({"epoch": 3, "state_dict": encoder.state_dict()}, path)
    with pytest.raises(ValueError, match=r"conv.*checkpoint|checkpoint.*conv"):
        fastrnn.load(path)
    layer = fastrnn.load(path, prefix="rnn")
    wanted = encoder["rnn"].weight_hh_l0.detach().numpy()
    np.testing.assert_array_equal(layer.parameters["weight_hh_l0"], wanted)
    with pytest.raises(ValueError, match=r"no names that begin with 'lstm\.'"):
        fastrnn.load(path, prefix="lstm")


def test_half_precision_of_torchs_becomes_float32(tmp_path):
    module = torch.nn.LSTM(3, 5).to(torch.bfloat16)
    torch.save(module.state_dict(), tmp_path / "half.pt")
    layer = fastrnn.load(tmp_path / "half.pt")
    wanted = module.weight_ih_l0.detach().float().numpy()
    np.testing.assert_array_equal(layer.parameters["weight_ih_l0"], wanted)


def test_safetensors_with_torchs_names(tmp_path):
    layer, last = make("LSTM", 3, 5, 2), fastrnn.Linear(5, 2, seed=1)
    named = {f"rnn.{name}": value for name, value in layer.parameters.items()}
    named |= {f"zz.{name}": value for name, value in last.parameters.items()}
    safetensors.numpy.save_file(named, tmp_path / "theirs.safetensors")
    model = fastrnn.load(tmp_path / "theirs.safetensors")
    x = np.random.default_rng(0).standard_normal((4, 2, 3), dtype=np.float32)
    np.testing.assert_array_equal(model(x)[0], last(layer(x)[0]))


def test_hastes_layout():
    """By its own equations: gates i, g, f, o and z, r, h, kernels (I, G * H)."""
    from fastrnn.weights import haste

    layer, rng = make("LSTM", 3, 5), np.random.default_rng(0)
    arrays = haste.arrays_of(layer)
    assert {n: a.shape for n, a in arrays.items()} == {
        "kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (20,),
    }  # fmt: skip
    x, h, c = (rng.standard_normal((2, size), dtype=np.float32) for size in (3, 5, 5))
    i, g, f, o = np.split(
        x @ arrays["kernel"] + h @ arrays["recurrent_kernel"] + arrays["bias"], 4, axis=1
    )
    sigmoid = torch_sigmoid
    c_new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    found = layer(x[None], (h[None], c[None]))[1]
    assert_close(found[1][0], c_new, TOLERANCE["float32"])
    assert_close(found[0][0], sigmoid(o) * np.tanh(c_new), TOLERANCE["float32"])

    layer = make("GRU", 3, 5)
    arrays = haste.arrays_of(layer)
    z, r, n = np.split(x @ arrays["kernel"] + arrays["bias"], 3, axis=1)
    hz, hr, hn = np.split(h @ arrays["recurrent_kernel"] + arrays["recurrent_bias"], 3, axis=1)
    z = sigmoid(z + hz)
    wanted = z * h + (1 - z) * np.tanh(n + sigmoid(r + hr) * hn)
    assert_close(layer(x[None], h[None])[1][0], wanted, TOLERANCE["float32"])


def torch_sigmoid(array):
    return torch.sigmoid(torch.from_numpy(array)).numpy()


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_hastes_layout_in_safetensors(cell, tmp_path):
    layer = make(cell, 3, 5)
    weights.save(layer, tmp_path / "a.safetensors", to="haste")
    again = fastrnn.load(tmp_path / "a.safetensors")
    assert_close(again.parameters["weight_hh_l0"], layer.parameters["weight_hh_l0"], 0)
    assert_close(outputs(again), outputs(layer), TOLERANCE["float32"])


def outputs(model):
    from fastrnn.tools.convert import outputs

    return outputs(model)


def test_rtneurals_files_are_written_as_its_own(tmp_path):
    model = fastrnn.Sequential(make("GRU", 3, 5), fastrnn.Linear(5, 1, activation="tanh", seed=0))
    weights.save(model, tmp_path / "model.json")
    found = json.loads((tmp_path / "model.json").read_text())
    assert found["in_shape"] == [None, None, 3]
    gru, dense = found["layers"]
    assert (gru["type"], gru["activation"], gru["shape"]) == ("gru", "tanh", [None, None, 5])
    assert np.array(gru["weights"][2]).shape == (2, 15)  # with the reset after the product
    assert (dense["type"], dense["activation"], dense["shape"]) == (
        "dense",
        "tanh",
        [None, None, 1],
    )


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".pt", pickle.dumps({"weight_ih_l0": [1.0]})),
        (".pt", b"PK\x03\x04" + bytes(100)),
        (".keras", b"PK\x05\x06" + bytes(18)),
        (".keras", b"no archive"),
        (".weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
        (".weights.h5", b"no HDF5"),
        (".npz", b"PK\x05\x06" + bytes(18)),
        (".npz", b""),
    ],
)
def test_files_that_are_none(suffix, content, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"model{suffix}"):
        fastrnn.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_there(suffix, tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / f"none{suffix}")


class Evil:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_place_of_weights_is_refused_and_not_run(legacy, tmp_path):
    path, made = tmp_path / "evil.pt", tmp_path / "made"
    content = {"weight_ih_l0": torch.zeros(20, 3), "weight_hh_l0": Evil(str(made))}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"evil\.pt' holds no weights alone"):
        fastrnn.load(path)
    assert not made.exists()
    path.rename(tmp_path / "evil.bin")
    with pytest.raises(ValueError, match=r"evil\.bin' holds no weights alone"):
        fastrnn.load(tmp_path / "evil.bin")
    assert not made.exists()


def test_a_tensor_that_repeats_without_end(tmp_path):
    endless = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"weight_ih_l0": endless, "weight_hh_l0": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"weight_ih_l0 has shape .*, more than the file holds"):
        fastrnn.load(tmp_path / "a.pt")


def test_an_archive_that_grows_without_end(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kernel.npy", bytes(1 << 28))
    with pytest.raises(ValueError, match=r"a\.npz.*kernel\.npy would have 268,435,456 bytes"):
        fastrnn.load(path)


def test_arrays_that_do_not_fit_are_named(tmp_path):
    arrays = {"kernel": np.ones((3, 20)), "recurrent_kernel": np.ones((5, 16)), "bias": np.ones(20)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"recurrent_kernel has shape \(5, 16\), wanted \(5, 20\)"):
        fastrnn.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **arrays, more=np.ones(2))
    with pytest.raises(ValueError, match="it holds the unknown more"):
        fastrnn.load(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", kernel=np.array([Evil("x")], object))
    with pytest.raises(ValueError, match="wanted numbers"):
        fastrnn.load(tmp_path / "c.npz")


def test_the_format_has_to_be_known(tmp_path):
    layer = make("GRU", 3, 5)
    with pytest.raises(ValueError, match=r"path ends in '.docx', wanted one of .safetensors, .pt"):
        weights.save(layer, tmp_path / "a.docx")
    with pytest.raises(ValueError, match="to is 'word', wanted one of 'fastrnn', 'torch'"):
        weights.save(layer, tmp_path / "a.npz", to="word")
    weights.save(layer, tmp_path / "a.docx", to="onnx")
    assert isinstance(fastrnn.load(tmp_path / "a.docx"), fastrnn.GRU)  # by its first bytes
    assert isinstance(fastrnn.load(tmp_path / "a.docx", of="onnx"), fastrnn.GRU)
    with pytest.raises(ValueError, match=r"no recurrent node 'x'; without a prefix it is GRU 3"):
        fastrnn.load(tmp_path / "a.docx", prefix="x")


@pytest.mark.parametrize("to", [*weights.FORMATS, None])
@pytest.mark.parametrize("model", [3, "cell"])
def test_what_is_no_model_is_named(model, to, tmp_path):
    model = fastrnn.LSTMCell(3, 4, seed=0) if model == "cell" else model
    if to in ("fastrnn", "torch") and model != 3:
        weights.save(model, tmp_path / "a", to=to)
        return
    message = f"^(model is an? )?{type(model).__name__}(, wanted | is no module)"
    with pytest.raises(TypeError, match=message):
        weights.save(model, tmp_path / "a.keras", to=to)
    assert not list(tmp_path.iterdir())
