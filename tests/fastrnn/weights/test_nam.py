"""NeuralAmpModeler's files: what they say, sample by sample, and what they may not say."""

import json

import numpy as np
import pytest

import fastrnn
from cases import TOLERANCE, assert_close
from fastrnn import weights
from reference import sigmoid


def file_of(I, H, L, **more):
    """A file's object, all its weights random."""
    many = sum(4 * H * (width + H + 1) + 2 * H for width in (I, *[H] * (L - 1))) + H + 1
    values = np.random.default_rng(0).normal(0, 0.5, many).astype(np.float32)
    return {
        "version": "0.5.4", "architecture": "LSTM", "weights": values.tolist(),
        "config": {"input_size": I, "hidden_size": H, "num_layers": L}, "sample_rate": 48000,
        "metadata": {"name": "a clean one", "loudness": -18.3}, **more,
    }  # fmt: skip


def played(found, x):
    """As the plugin plays it, by its text: a cell a level, then the head; x (T, I)."""
    values = iter(found["weights"])

    def taken(*shape):
        return np.array([next(values) for _ in range(np.prod(shape))]).reshape(shape)

    I, H, L = (found["config"][name] for name in ("input_size", "hidden_size", "num_layers"))
    cells = [
        [taken(4 * H, width + H), taken(4 * H), taken(H), taken(H)] for width in [I] + [H] * (L - 1)
    ]
    head, bias = taken(H), taken(1)
    assert next(values, None) is None
    y = []
    for row in x:
        for cell in cells:
            W, b, h, c = cell
            i, f, g, o = np.split(W @ np.concatenate([row, h]) + b, 4)
            cell[3] = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            row = cell[2] = sigmoid(o) * np.tanh(cell[3])
        y.append(head @ row + bias)
    return np.array(y)


@pytest.mark.smoke
@pytest.mark.parametrize(("I", "H", "L"), [(1, 5, 1), (2, 3, 2)])
def test_it_plays_what_the_file_says(I, H, L, tmp_path):
    found, path = file_of(I, H, L), tmp_path / "amp.nam"
    path.write_text(json.dumps(found))
    model = fastrnn.load(path)
    x = np.random.default_rng(1).standard_normal((9, I)).astype(np.float32)
    wanted = played(found, x.astype(np.float64))
    y, _ = model(x[:, None])
    assert_close(y[:, 0], wanted, TOLERANCE["float32"])
    stream = model.stream()
    for _ in range(2):
        assert_close(stream.block(x), wanted, TOLERANCE["float32"])
        stream.reset()
    assert list(model.modules[0].parameters)[-2:] == [f"initial_{s}_l{L - 1}" for s in "hc"]

    weights.save(model, tmp_path / "again.nam")
    again = json.loads((tmp_path / "again.nam").read_text())
    assert again["weights"] == found["weights"]
    assert again["config"] == found["config"]
    own = fastrnn.load(path, prefix="0")
    assert np.array_equal(own(x[:, None])[0], model.modules[0](x[:, None])[0])
    with pytest.raises(ValueError, match=r"amp\.nam.* has no part '2'; prefix takes one of them"):
        fastrnn.load(path, prefix="2")


def test_a_model_without_a_learned_start_can_be_written(tmp_path):
    model = fastrnn.Sequential(
        fastrnn.LSTM(1, 4, bias=False, seed=0), fastrnn.Linear(4, 1, bias=False, seed=1)
    )
    weights.save(model, tmp_path / "amp.nam")
    x = np.random.default_rng(1).standard_normal((9, 1, 1)).astype(np.float32)
    assert_close(fastrnn.load(tmp_path / "amp.nam")(x)[0], model(x)[0], TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "WaveNet"}, "it holds a WaveNet, wanted an LSTM"),
        ({"weights": [0.5] * 10}, r"weights have shape \(10,\), wanted \(39,\) for input_size=1"),
        ({"weights": ["0.5"] * 42}, "weights is no array of numbers"),
        ({"weights": [[0.5] * 42]}, r"weights have shape \(1, 42\)"),
        ({"config": {"input_size": 1, "hidden_size": 2}}, "num_layers is None, wanted 1 to"),
        ({"config": {"input_size": True}}, "input_size is True, wanted 1 to"),
        (
            {"config": {"input_size": 1, "hidden_size": 2, "num_layers": 10_001}},
            "num_layers is 10001, wanted 1 to 10000",
        ),
        ({"config": []}, "input_size is None, wanted 1 to"),
    ],
)
def test_bad_files(change, message, tmp_path):
    (tmp_path / "amp.nam").write_text(json.dumps(file_of(1, 2, 1) | change))
    with pytest.raises(ValueError, match=rf"amp\.nam.*{message}"):
        fastrnn.load(tmp_path / "amp.nam")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"layers": []}', ""])
def test_what_is_none_of_its_files(text, tmp_path):
    (tmp_path / "amp.nam").write_text(text)
    with pytest.raises(ValueError, match=r"amp\.nam"):
        fastrnn.load(tmp_path / "amp.nam")


def test_a_file_of_another_name(tmp_path):
    (tmp_path / "amp.json").write_text(json.dumps(file_of(1, 2, 1)))
    with pytest.raises(ValueError, match=r"NeuralAmpModeler's \(LSTM\).* say of='nam'"):
        fastrnn.load(tmp_path / "amp.json")
    assert fastrnn.load(tmp_path / "amp.json", of="nam").modules[0].hidden_size == 2


def test_what_it_has_no_place_for(tmp_path):
    lstm, head = fastrnn.LSTM(1, 4, seed=0), fastrnn.Linear(4, 1, seed=0)
    for model in (
        lstm,
        fastrnn.Sequential(fastrnn.GRU(1, 4, seed=0), head),
        fastrnn.Sequential(lstm, fastrnn.Linear(4, 2, seed=0)),
        fastrnn.Sequential(lstm, fastrnn.Linear(4, 1, activation="tanh", seed=0)),
    ):
        with pytest.raises(ValueError, match="NeuralAmpModeler's LSTM is one"):
            weights.save(model, tmp_path / "amp.nam")
    with pytest.raises(ValueError, match="has peepholes=True, which is for fastrnn's own format"):
        weights.save(
            fastrnn.Sequential(fastrnn.LSTM(1, 4, peepholes=True), head), tmp_path / "amp.nam"
        )
    assert not (tmp_path / "amp.nam").exists()
