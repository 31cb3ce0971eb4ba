"""Ensembles: each model is its layer by itself, to the last bit, in values and in gradients."""

import copy
import pickle

import numpy as np
import pytest
from click.testing import CliRunner

import fastrnn
from cases import as_state, states
from fastrnn.cli.main import main
from fastrnn.files import safetensors
from fastrnn.files.description import KEY

M, T, B, I, H = 3, 9, 4, 5, 7
LENGTHS = np.array([9, 0, 4, 6])


def same(one, other):
    """Whether two arrays are the same to the sign of a zero."""
    return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


@fastrnn.cell(gates="z n", per_unit="p")
def Gated(a, s, p):
    """A unit with a parameter of its own."""
    z = fastrnn.equations.sigmoid(a.z)
    return (1 - z) * s.h + z * fastrnn.equations.tanh(a.n + p.p * s.h)


#: layer, arguments
KINDS = {
    "LSTM": (fastrnn.LSTM, {"num_layers": 2, "bidirectional": True, "dropout": 0.4}),
    "GRU": (fastrnn.GRU, {"initial_state": "learned", "bias": False}),
    "RNN": (fastrnn.RNN, {"batch_first": True, "bidirectional": True}),
    "own": (Gated, {"num_layers": 2, "dtype": "float64"}),
    "projected": (fastrnn.LSTM, {"proj_size": 3}),
    "drawn": (
        fastrnn.LSTM,
        {
            "dtype": "float64",
            "zoneout": (0.3, 0.4),
            "recurrent_dropout": 0.25,
            "recurrent_dropout_on": "candidate",
            "weight_dropout": 0.2,
            "input_dropout": 0.1,
        },
    ),
}


def ensemble_of(name, **more):
    layer, options = KINDS[name]
    return fastrnn.Ensemble(layer, I, H, models=M, seed=4, **{**options, **more})


def layers_of(name):
    """The same models, each a layer made by itself."""
    layer, options = KINDS[name]
    return [layer(I, H, seed=(4, m), **options) for m in range(M)]


def normal(like, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(like.dtype)


def summed(arrays):
    """From the first to the last."""
    total = arrays[0].copy()
    for one in arrays[1:]:
        total += one
    return total


def assert_each_is_its_layer(ensemble, layers, x, one, how=None, each=None, checkpoint=None):
    """Compare a pass, forward and backward, with those of layers.

    x: the input; one: that of a model. how: arguments; each: those of every layer.
    """
    how = how or {}
    each = each or [how] * M
    state = how.get("state")
    of_model = [
        None if state is None else as_state([s[m] for s in states(state)]) for m in range(M)
    ]
    each = [{**e, "state": of_model[m]} for m, e in enumerate(each)]
    plain, _ = ensemble(x, **how)
    y, final, tape = ensemble.forward(x, **how, checkpoint=checkpoint)
    dy = normal(ensemble, *y.shape, seed=1)
    dstate = as_state([normal(ensemble, *s.shape, seed=2) for s in states(final)])
    gradients = ensemble.backward(tape, dy, dstate, clip_norm=0.5)
    dxs = []
    for m, layer in enumerate(layers):
        assert same(plain[m], layer(one(m), **each[m])[0])
        wanted, its_final, its_tape = layer.forward(one(m), **each[m], checkpoint=checkpoint)
        assert same(y[m], wanted)
        found = layer.backward(
            its_tape, dy[m], as_state([d[m] for d in states(dstate)]), clip_norm=0.5
        )
        for mine, its in zip(states(final), states(its_final), strict=True):
            assert same(mine[m], its)
        for mine, its in zip(states(gradients.state), states(found.state), strict=True):
            assert same(mine[m], its)
        assert gradients.parameters.keys() == found.parameters.keys()
        for name, value in found.parameters.items():
            assert same(gradients.parameters[name][m], value), name
        dxs.append(found.x)
    if x.ndim == 4:
        assert all(same(mine, its) for mine, its in zip(gradients.x, dxs, strict=True))
    else:
        assert same(gradients.x, summed(dxs))


@pytest.mark.parametrize("name", KINDS)
def test_each_model_is_its_layer(name):
    ensemble, layers = ensemble_of(name), layers_of(name)
    shape = (B, T, I) if ensemble._layer.batch_first else (T, B, I)
    x = normal(ensemble, *shape)
    assert_each_is_its_layer(ensemble, layers, x, lambda m: x)
    xs = normal(ensemble, M, *shape)
    assert_each_is_its_layer(ensemble, layers, xs, lambda m: xs[m], checkpoint=4)


def test_lengths_resets_and_states_for_all_and_for_each():
    ensemble, layers = ensemble_of("LSTM"), layers_of("LSTM")
    xs = normal(ensemble, M, T, B, I)
    xs[1, 5, 2] = np.nan  # behind the end of its row
    reset = np.random.default_rng(5).random((M, T, B)) < 0.2
    state = tuple(normal(ensemble, M, 4, B, H, seed=s) for s in (6, 7))
    how = {"lengths": LENGTHS, "reset": reset[0], "state": state}
    assert_each_is_its_layer(ensemble, layers, xs, lambda m: xs[m], how)
    lengths = np.stack([np.roll(LENGTHS, m) for m in range(M)])
    how = {"lengths": lengths, "reset": reset, "state": state}
    each = [{"lengths": lengths[m], "reset": reset[m]} for m in range(M)]
    x = normal(ensemble, T, B, I)
    assert_each_is_its_layer(ensemble, layers, x, lambda m: x, how, each)


def test_unbatched_input_is_for_all():
    ensemble, layers = ensemble_of("GRU"), layers_of("GRU")
    x = normal(ensemble, T, I)
    assert_each_is_its_layer(ensemble, layers, x, lambda m: x, {"lengths": [5]})


def test_threads_change_no_bit(many_cpus):
    ensemble = fastrnn.Ensemble(fastrnn.LSTM, 32, 64, models=5, seed=0)
    x = normal(ensemble, 40, 6, 32)
    before, found = fastrnn.get_num_threads(), []
    try:
        for threads in (1, 2, 7, 16):  # of 16, each model has several
            fastrnn.set_num_threads(threads)
            y, _, tape = ensemble.forward(x)
            gradients = ensemble.backward(tape, y)
            found.append([y, gradients.x, *gradients.parameters.values()])
    finally:
        fastrnn.set_num_threads(before)
    for other in found[1:]:
        assert all(same(a, b) for a, b in zip(found[0], other, strict=True))


def test_more_models_than_run_together(monkeypatch):
    monkeypatch.setattr("fastrnn.models.stack._TOGETHER", 2)
    ensemble, layers = ensemble_of("LSTM"), layers_of("LSTM")
    x = normal(ensemble, T, B, I)
    assert_each_is_its_layer(ensemble, layers, x, lambda m: x)


def test_dropout_by_a_generator_is_that_of_one_layer_after_the_other():
    ensemble, layers = ensemble_of("LSTM"), layers_of("LSTM")
    x, rng, its = normal(ensemble, T, B, I), np.random.default_rng(8), np.random.default_rng(8)
    y, _, _ = ensemble.forward(x, rng=rng)
    for m, layer in enumerate(layers):
        assert same(y[m], layer.forward(x, rng=its)[0])
    still, _, _ = ensemble.forward(x, training=False)
    assert not same(y, still)


def test_members_are_copies_and_make_an_ensemble():
    ensemble = ensemble_of("LSTM")
    x = normal(ensemble, T, B, I)
    ensemble.forward(x)
    members = [ensemble.member(m) for m in range(M)]
    again = fastrnn.Ensemble.from_members(members)
    y, _, _ = ensemble.forward(x)
    assert same(again.forward(x)[0], y)  # with the masks of each
    assert same(members[1].forward(x)[0], y[1])
    members[1].update({"weight_hh_l0": np.zeros((4 * H, H))})
    assert same(ensemble.member(1).parameters["weight_hh_l0"], again.parameters["weight_hh_l0"][1])
    assert again.parameters["weight_hh_l0"][1].any()


def test_it_learns_and_keeps_what_a_pass_began_with():
    ensemble = ensemble_of("GRU", bias=True)
    x = normal(ensemble, T, B, I)
    y, _, tape = ensemble.forward(x)
    before = ensemble.backward(tape, y).parameters
    changed = {n: p - 0.003 * before[n] for n, p in ensemble.parameters.items()}
    ensemble.update(changed)
    assert all(same(ensemble.parameters[n], value) for n, value in changed.items())
    after = ensemble.backward(tape, y).parameters  # the tape's own weights
    assert all(same(after[n], value) for n, value in before.items())
    assert (np.square(ensemble(x)[0]).sum((1, 2, 3)) < np.square(y).sum((1, 2, 3))).all()
    with pytest.raises(ValueError, match="read-only"):
        ensemble.parameters["weight_ih_l0"][0, 0] = 1
    with pytest.raises(AttributeError, match="models of this Ensemble is fixed at 3"):
        ensemble.models = 4


@pytest.mark.parametrize("name", ["LSTM", "own"])
def test_files_pickles_and_copies_keep_it(name, tmp_path):
    ensemble = ensemble_of(name)
    x = normal(ensemble, T, B, I)
    ensemble.save(tmp_path / "ensemble.safetensors")
    loaded = fastrnn.load(tmp_path / "ensemble.safetensors")
    for other in (loaded, pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
        assert isinstance(other, fastrnn.Ensemble)
        assert repr(other) == repr(ensemble)
        assert same(other(x)[0], ensemble(x)[0])
    other = copy.deepcopy(ensemble)
    assert same(other.forward(x)[0], ensemble.forward(x)[0])  # and its dropout
    with pytest.raises((TypeError, ValueError), match="Ensemble"):
        ensemble.save(tmp_path / "ensemble.pt")
    assert not (tmp_path / "ensemble.pt").exists()


def test_a_model_of_a_file_is_taken_by_its_number(tmp_path):
    ensemble, path = (
        ensemble_of("GRU", initial_state="zeros", bias=True),
        tmp_path / "e.safetensors",
    )
    ensemble.save(path)
    x = normal(ensemble, T, B, I)
    assert same(fastrnn.load(path, prefix="2")(x)[0], ensemble(x)[0][2])
    _, parts = fastrnn.weights.contents(path)
    assert [part.prefix for part in parts] == ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"prefix takes one of them by name: '0', GRU 5 → 7"):
        fastrnn.load(path, prefix="3")
    for command in (["convert", path, tmp_path / "e.pt"], ["stream", path, "-", "-"]):
        done = CliRunner().invoke(main, [*map(str, command)])
        assert done.exit_code == 1
        assert "holds an Ensemble of 3 models: take one of them by its number" in done.output
    done = CliRunner().invoke(
        main, ["convert", str(path), str(tmp_path / "1.onnx"), "--prefix", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "GRU 5 → 7" in CliRunner().invoke(main, ["show", str(path)]).output


def test_a_broken_file_is_refused(tmp_path):
    ensemble, path = ensemble_of("GRU"), tmp_path / "ensemble.safetensors"
    for old, new, told in (
        ('"models": 3', '"models": 4', r"has shape \(3, 7\), wanted \(4, 7\)"),
        ('"models": 3', '"models": "3"', "models is '3', wanted an integer"),
        ('"class": "GRU"', '"class": "Linear"', "is of class 'Linear', wanted layers"),
        ('"class": "GRU"', '"class": "Ensemble"', "describes no class"),
        ('"num_layers": 1', '"num_layers": 9999', "num_layers=9999"),
    ):
        text = ensemble.description()
        assert old in text
        safetensors.write(ensemble.state_dict(), path, {KEY: text.replace(old, new)})
        with pytest.raises(ValueError, match=told):
            fastrnn.load(path)


def test_wrong_arguments_are_refused():
    ensemble = ensemble_of("GRU")
    x = normal(ensemble, T, B, I)
    for wrong, error, told in (
        (np.zeros((M + 1, T, B, I), np.float32), ValueError, "wanted one for each of 3 models"),
        (np.zeros((T, B, I + 1), np.float32), ValueError, "has I=6, this layer takes 5"),
        (x.astype("float64"), TypeError, "input has dtype float64"),
        (x[0, 0], ValueError, r"input has shape \(5,\)"),
    ):
        with pytest.raises(error, match=told):
            ensemble(wrong)
    with pytest.raises(ValueError, match="lengths has shape"):
        ensemble(x, lengths=np.ones((M + 1, B), int))
    with pytest.raises(
        ValueError, match=r"state has shape \(1, 4, 7\), wanted \(models, num_layers"
    ):
        ensemble(x, np.zeros((1, B, H), np.float32))
    with pytest.raises(ValueError, match=r"weight_ih_l0 has shape \(21, 5\), wanted \(3, 21, 5\)"):
        ensemble.update({"weight_ih_l0": np.zeros((3 * H, I))})
    y, _, tape = ensemble.forward(x)
    with pytest.raises(ValueError, match="dy has shape"):
        ensemble.backward(tape, y[0])
    with pytest.raises(ValueError, match="tape comes from another ensemble"):
        ensemble_of("GRU").backward(tape, y)
    with pytest.raises(IndexError, match="m is 3, wanted 0 to 2"):
        ensemble.member(3)
    with pytest.raises(TypeError, match="make a stream of each"):
        ensemble.stream()
    with pytest.raises(TypeError, match="wanted a class of layers"):
        fastrnn.Ensemble(fastrnn.LSTM(3, 4), models=2)
    with pytest.raises(TypeError, match="seed is 'a', wanted an integer"):
        fastrnn.Ensemble(fastrnn.LSTM, 3, 4, models=2, seed="a")
    with pytest.raises(ValueError, match="models is 0, wanted at least 1"):
        fastrnn.Ensemble(fastrnn.LSTM, 3, 4, models=0)
    with pytest.raises(ValueError, match=r"member 1 is .*, wanted one like member 0"):
        fastrnn.Ensemble.from_members([fastrnn.GRU(3, 4), fastrnn.GRU(3, 5)])
    with pytest.raises(TypeError, match="member 0 is a Linear, wanted a layer"):
        fastrnn.Ensemble.from_members([fastrnn.Linear(3, 4)])


def test_the_bytes_of_a_tape_are_told_ahead():
    ensemble = ensemble_of("LSTM")
    xs = normal(ensemble, M, T, B, I)
    _, _, tape = ensemble.forward(xs)
    held = {}
    for one in tape.tapes:
        found = [mask for mask in one.masks or () if mask is not None]
        for of_pass in one.passes:
            fields = [getattr(of_pass, name) for name in of_pass.__slots__]
            found += [field for field in fields if isinstance(field, np.ndarray)]
        held |= {a.ctypes.data: a.nbytes for a in found if a.size}
    assert ensemble.tape_bytes(T, B) == sum(held.values())
