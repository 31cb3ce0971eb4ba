"""Dropout inside of layers, and zoneout: values, gradients, bits, what inference has of them."""

import pickle

import numpy as np
import pytest

import fastrnn
import philox
import reference
from cases import TOLERANCE, assert_close
from fastrnn_kernels.cpu.threads import pool
from regularised import Regularised
from steps_of_cells import min_gru

T, B, I, H = 5, 4, 3, 6
LENGTHS = [5, 2, 0, 4]
ALL_DRAWN = {
    "zoneout": (0.3, 0.4), "recurrent_dropout": 0.25, "recurrent_dropout_on": "candidate",
}  # fmt: skip
CASES = {
    "drawn": ("LSTM", ALL_DRAWN),
    "masked": ("LSTM", {"recurrent_dropout": 0.3, "proj_size": 4}),
    "late": ("GRU", {"recurrent_dropout": 0.3, "reset_after": False}),
    "outside": ("RNN", {"input_dropout": 0.4, "weight_dropout": 0.3}),
}


def layer_of(case, hidden_size=H, **more):
    kind, options = CASES[case]
    return getattr(fastrnn, kind)(
        I, hidden_size, **{"dtype": "float64", "seed": 0} | options | more
    )


def truth(layer, seed):
    """What the layer computes with a generator of this seed; None for inference."""
    key = None
    if seed is not None:
        key = int(np.random.default_rng(seed).integers(2**64, dtype=np.uint64))
    own = {"reset_after": layer.reset_after} if layer.kind == "GRU" else {}
    return Regularised(layer, key, **own)


def problem(layer):
    random = np.random.default_rng(1)
    shape = T, B, layer.directions * layer.state_size
    return random.standard_normal((T, B, I)), random.standard_normal(shape)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    """The reference with the masks that follow from the key, and finite differences of it."""
    layer = layer_of(case, num_layers=2, bidirectional=True)
    x, dy = problem(layer)
    y, _, tape = layer.forward(x, lengths=LENGTHS, rng=np.random.default_rng(3))
    found = layer.backward(tape, dy)
    parameters, of = layer.state_dict(), truth(layer, 3)
    assert_close(y, of(parameters, x, LENGTHS), TOLERANCE["float64"], "y")
    assert np.abs(y - layer(x, lengths=LENGTHS)[0]).max() > 0.001

    def loss(given):
        moved = of(parameters | given, given.get("x", x), LENGTHS)
        return reference.inner([moved], [dy])

    names = "x", "weight_hh_l0", "weight_ih_l1", "bias_hh_l0_reverse"
    given = {"x": x} | {name: parameters[name] for name in names[1:]}
    for name, wanted in reference.finite_differences(loss, given).items():
        got = ({"x": found.x} | found.parameters)[name]
        # Central differences err by some 1e-10 (see reference.STEP) times a few dozen terms.
        assert_close(got, wanted, 1e-8, name)


@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_of_any_division(case, monkeypatch):
    """With two threads, that share rows or units, and with checkpoints."""
    layer = layer_of(case, num_layers=2, hidden_size=33)
    random = np.random.default_rng(2)
    x, dy = (random.standard_normal((9, B, n)) for n in (I, layer.state_size))

    def run(**how):
        y, _, tape = layer.forward(x, lengths=[9, 7, 0, 8], rng=np.random.default_rng(5), **how)
        found = layer.backward(tape, dy)
        return [y, found.x, *found.parameters.values()]

    before = pool.get_num_threads()
    try:
        pool.set_num_threads(1)
        wanted = run()
        assert all(map(np.array_equal, run(checkpoint=2), wanted))
        monkeypatch.setattr(pool, "MIN_WORK", 1)
        pool.set_num_threads(2)
        assert all(map(np.array_equal, run(), wanted))
    finally:
        pool.set_num_threads(before)


@pytest.mark.parametrize("case", ["masked", "late"])
def test_a_reset_begins_anew_with_the_same_mask(case):
    layer = layer_of(case)
    x, dy = problem(layer)
    reset = np.zeros((T, B), bool)
    reset[3] = True
    y, _, tape = layer.forward(x, reset=reset, rng=np.random.default_rng(6))
    found = layer.backward(tape, dy)
    rest, _, tape = layer.forward(x[3:], rng=np.random.default_rng(6))
    assert np.array_equal(y[3:], rest)
    assert np.array_equal(found.x[3:], layer.backward(tape, dy[3:]).x)


def test_with_a_norm_and_blocks_gradients_are_those_of_differences():
    """What stands between products and gates, and a mask of h, in one kernel."""
    layer = fastrnn.GRU(
        3, 8, norm="layer", blocks=2, bidirectional=True, zoneout=0.3, recurrent_dropout=0.3,
        input_dropout=0.2, weight_dropout=0.1, dtype="float64", seed=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, step = rng.standard_normal((5, 3, 3)), 1e-6

    def run(**more):
        return layer.forward(x, lengths=[5, 2, 4], rng=np.random.default_rng(5), **more)

    y, _, tape = run()
    dy = rng.standard_normal(y.shape)
    found = layer.backward(tape, dy).parameters
    y_again, _, small = run(checkpoint=2)
    assert np.array_equal(y_again, y)
    again = layer.backward(small, dy).parameters
    for name, value in layer.state_dict().items():
        assert np.array_equal(again[name], found[name])
        change, sides = rng.standard_normal(value.shape), []
        for sign in (1, -1):
            layer.update({name: value + sign * step * change})
            sides.append((run()[0] * dy).sum())
        layer.update({name: value})
        wanted = (sides[0] - sides[1]) / (2 * step)
        assert (found[name] * change).sum() == pytest.approx(wanted, rel=1e-6, abs=1e-7), name


def test_zoneout_of_a_cell_of_equations():
    """One step, of which the mask is known."""
    layer = fastrnn.cells.MinGRU(I, H, zoneout=0.4, seed=0, dtype="float64")
    random = np.random.default_rng(0)
    x, h = (random.standard_normal((1, B, n)) for n in (I, H))
    (new,), _ = min_gru(reference.weights_of(layer.state_dict(), "_l0"), x, (h,))
    y, *_ = layer.forward(x, h, rng=np.random.default_rng(8))
    key = int(np.random.default_rng(8).integers(2**64, dtype=np.uint64))
    kept = philox.each_step(key, philox.CELL, 0, 1, B, H, 0.4)
    assert np.array_equal(y[kept], h[kept])
    assert_close(y, np.where(kept, h, new), 1e-12)


def test_calls_draw_anew_and_a_seed_gives_the_same():
    one, other = (layer_of("masked") for _ in range(2))
    x, _ = problem(one)
    first, second = (one.forward(x)[0] for _ in range(2))
    assert (first != second).any()
    assert np.array_equal(other.forward(x)[0], first)
    assert np.array_equal(one.forward(x, training=False)[0], one(x)[0])


def test_inference_has_what_is_expected():
    """In calls, without training, in streams and in what files and pickles bring back."""
    layer = layer_of("drawn", num_layers=2)
    x, dy = problem(layer)
    of, parameters = truth(layer, None), layer.state_dict()
    y, _ = layer(x, lengths=LENGTHS)
    assert_close(y, of(parameters, x, LENGTHS), TOLERANCE["float64"], "y")
    again, _, tape = layer.forward(x, lengths=LENGTHS, training=False)
    assert np.array_equal(again, y)
    found = layer.backward(tape, dy)
    assert [*found.parameters] == [*parameters]

    def loss(given):
        return reference.inner([of(parameters | given, x, LENGTHS)], [dy])

    given = {"weight_hh_l0": parameters["weight_hh_l0"]}
    wanted = reference.finite_differences(loss, given)["weight_hh_l0"]
    assert_close(found.parameters["weight_hh_l0"], wanted, 1e-8)
    stream = layer.stream(batch_size=B)
    assert np.array_equal(stream.block(x), layer(x)[0])
    assert np.array_equal(pickle.loads(pickle.dumps(layer))(x)[0], layer(x)[0])


def test_shares_of_what_kernels_draw():
    layer = layer_of("drawn")
    x = np.random.default_rng(1).standard_normal((40, 50, I))
    (taken,) = layer.forward(x, rng=np.random.default_rng(0))[2].passes
    for name, rate, drawn in (
        ("left_of_g", 0.25, 0), ("zoneout_h", 0.3, 1), ("zoneout_c", 0.4, 1),
    ):  # fmt: skip
        values = taken.saved[:, :, taken.weights.cell.saved.index(name), :H]
        assert np.isin(values, [0, 1 / 0.75 if name == "left_of_g" else 1]).all()
        for axis in (None, (0, 1), (0, 2), (1, 2)):  # all; each unit; each row; each step
            share = np.mean(values == drawn, axis=axis)
            n = values.size / np.size(share)
            # Five deviations of independent draws; the seed is fixed, so it holds or it does not.
            assert np.abs(share - rate).max() < 5 * np.sqrt(rate * (1 - rate) / n)


def test_gates_have_what_is_left_of_the_cell_state():
    layer = layer_of("drawn")
    x, _ = problem(layer)
    for training in (True, False):
        *_, (_, c_n), tape = layer.forward(x, training=training, return_gates=True)
        assert_close(tape.gates[0]["c"][-1], c_n[0], 1e-12)


def test_files_keep_the_arguments(tmp_path):
    layer = layer_of("drawn")
    layer.save(tmp_path / "a.safetensors")
    again = fastrnn.load(tmp_path / "a.safetensors")
    assert again.config() == layer.config()
    x, _ = problem(layer)
    assert np.array_equal(again(x)[0], layer(x)[0])
    with pytest.raises(ValueError, match=r"this LSTM has zoneout=\(0.3, 0.4\)"):
        layer.save(tmp_path / "a.pt")
    plain = layer_of("masked")
    plain.save(tmp_path / "b.pt")  # as with `dropout`, whose layers compute the same
    assert np.array_equal(fastrnn.load(tmp_path / "b.pt")(x)[0], plain(x)[0])
    assert not {"zoneout", "weight_dropout"} & fastrnn.GRU(I, H).config().keys()


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("LSTM", {"zoneout": 1.5}, "zoneout is 1.5, wanted a number from 0 to 1"),
        ("LSTM", {"zoneout": (0.1, -1)}, r"zoneout\[1\] is -1, wanted a number from 0 to 1"),
        ("GRU", {"zoneout": (0.1, 0.2)}, "zoneout has 2 probabilities, this GRU has 1 states: h"),
        ("LSTM", {"zoneout": 0.1, "proj_size": 2}, r"wanted zoneout of the other .*\(0, 0.1\)"),
        ("RNN", {"recurrent_dropout_on": "candidate"}, "wanted 'h', as this is no LSTM or GRU"),
        ("GRU", {"recurrent_dropout_on": "n"}, "recurrent_dropout_on is 'n'"),
        ("GRU", {"weight_dropout": -0.1}, "weight_dropout is -0.1, wanted"),
    ],
)
def test_wrong_arguments(kind, options, told):
    with pytest.raises(ValueError, match=told):
        getattr(fastrnn, kind)(I, H, **options)


def test_cells_without_r_have_nothing_to_drop():
    with pytest.raises(
        ValueError, match=r"weight_dropout is 0.5, wanted 0: no gate of .* has an R"
    ):
        fastrnn.cells.MinGRU(I, H, weight_dropout=0.5)
