"""Steps of any sizes: the bits of those for sizes, which take their place at any moment."""

from itertools import product

import numpy as np
import pytest

import fastrnn
import fastrnn_kernels.cpu.stream.steps as stream_module
from cases import CELLS, make
from fastrnn_kernels.cpu.stream import background, generic, program


class Asked(list):
    """Programs that wait for their own functions."""

    def compiled(self, monkeypatch):
        """From now on these are compiled where they are wanted; tell those that wait."""
        monkeypatch.setattr(program, "_at_hand", lambda stages, team: True)
        for taker in self:
            assert taker()()


@pytest.fixture
def asked(monkeypatch):
    """Streams begin with code of any sizes, compiled if need be, and no process is started."""
    takers = Asked()
    monkeypatch.setattr(program, "_at_hand", lambda stages, team: False)
    monkeypatch.setattr(generic, "at_hand", lambda stages, team: True)
    monkeypatch.setattr(background, "usable", lambda: True)
    monkeypatch.setattr(background, "ask", lambda task, taker: takers.append(taker))
    return takers


def inputs(B, I, T=3, dtype="float32"):
    return np.random.default_rng(0).standard_normal((T, B, I)).astype(dtype)


def run(stream, x):
    """Each step of x (T, B, I) by itself."""
    return np.stack([stream.step(row).copy() for row in x])


@pytest.mark.parametrize("cell", CELLS)
def test_bits_of_all_sizes(asked, cell):
    """Rows beside tiles; less than a vector; panels and a bit; sums of more than one chain."""
    for B, I, H in product((1, 2, 3, 5, 8), (1, 17, 130), (1, 7, 63)):
        layer, x = make(cell, I, H), inputs(B, I)
        stream = layer.stream(B)
        assert not stream.specialised
        np.testing.assert_array_equal(run(stream, x), layer(x)[0], err_msg=f"{B}, {I}, {H}")
    layer, x = make(cell, 2, 140), inputs(1, 2)
    np.testing.assert_array_equal(run(layer.stream(), x), layer(x)[0])
    assert asked


def test_bits_of_projections_and_stacks(asked):
    for B, P, H, layers in product((1, 3, 5), (1, 9), (10, 63), (1, 3)):
        layer = make("LSTM", 5, H, num_layers=layers, proj_size=P)
        x = inputs(B, 5)
        stream = layer.stream(B)
        assert not stream.specialised
        np.testing.assert_array_equal(run(stream, x), layer(x)[0], err_msg=f"{B}, {P}, {H}")


@pytest.mark.parametrize("weights", [None, "bf16", "int8"])
def test_bits_of_whole_models(asked, monkeypatch, weights):
    """Of stacks with a linear layer, however weights are stored, as their own functions have them.

    Odd sizes: the last value of a column has no other beside it, in bf16.
    """
    model = fastrnn.Sequential(
        make("RNN-tanh", 5, 35), make("RNN-tanh", 35, 7), fastrnn.Linear(7, 3, activation="tanh")
    )
    x = inputs(2, 5, T=4)
    stream = model.stream(2, weights=weights)
    y = run(stream, x)
    assert not stream.specialised
    asked.compiled(monkeypatch)
    assert stream.specialised
    stream.reset()
    np.testing.assert_array_equal(run(stream, x), y)


def test_bits_of_float64(asked):
    for B, I, H in product((1, 5), (1, 17), (7, 63)):
        layer, x = make("RNN-tanh", I, H, dtype="float64"), inputs(B, I, dtype="float64")
        np.testing.assert_array_equal(run(layer.stream(B), x), layer(x)[0])


def test_its_own_function_goes_on_where_that_of_any_sizes_was(asked, monkeypatch):
    """By every way in, with the state that is there; a snapshot fits both."""
    layer, x = make("RNN-tanh", 4, 13), inputs(1, 4, T=9)[:, 0]
    y, _ = layer(x)
    stream = layer.stream()
    handle, out = stream.handle, np.zeros((3, 13), np.float32)

    def three_steps(first):
        assert fastrnn.jit.step(handle, x[first], out[0]) == fastrnn.jit.DONE
        stream.block(x[first + 1 : first + 2], out=out[1:2])
        stream.step(x[first + 2], out=out[2])
        np.testing.assert_array_equal(out, y[first : first + 3])

    three_steps(0)
    moment = stream.snapshot()
    assert not stream.specialised
    asked.compiled(monkeypatch)
    assert stream.specialised
    three_steps(3)
    three_steps(6)
    stream.restore(moment)
    three_steps(3)


def test_teams(asked, monkeypatch):
    """Members of a team may run either function in the same step: they meet at the same places."""
    monkeypatch.setattr(stream_module, "MEMBER_WORK", 1)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(2)
    try:
        layer, x = make("RNN-tanh", 20, 70), inputs(1, 20, T=300)[:, 0]
        y, _ = layer(x)
        stream = layer.stream()
        np.testing.assert_array_equal(stream.block(x[:100]), y[:100])
        np.testing.assert_array_equal(run(stream, x[100:200]), y[100:200])
        asked.compiled(monkeypatch)
        np.testing.assert_array_equal(run(stream, x[200:250]), y[200:250])
        np.testing.assert_array_equal(stream.block(x[250:]), y[250:])
    finally:
        fastrnn.set_num_threads(before)


def test_warmup_compiles_at_once(asked):
    layer, x = make("RNN-tanh", 4, 13), inputs(1, 4)[:, 0]
    stream = layer.stream()
    first = stream.step(x[0], copy=True)
    stream.warmup()
    assert stream.specialised
    np.testing.assert_array_equal(np.stack([first, *run(stream, x[1:])]), layer(x)[0])


def test_new_parameters_before_it_is_compiled(asked, monkeypatch):
    layer, x = make("RNN-tanh", 4, 13), inputs(1, 4)[:, 0]
    stream = layer.stream()
    layer.update({"bias_ih_l0": np.ones(13, np.float32)})
    stream.refresh()
    assert not stream.specialised
    asked[:] = asked[1:]  # the program before is not wanted any more
    asked.compiled(monkeypatch)
    np.testing.assert_array_equal(run(stream, x), layer(x)[0])


def test_nothing_is_asked_for_a_cell_that_no_other_process_knows(asked, monkeypatch):
    """Its own function is compiled at once."""
    monkeypatch.setattr(program, "CELLS", {})
    assert make("RNN-tanh", 4, 13).stream().specialised
    assert not asked


def test_what_is_asked_for_is_what_is_compiled(monkeypatch):
    """In the other process: the same functions, by their names."""
    made = []
    monkeypatch.setattr(program, "_address", lambda stages, team: made.append((stages, team)))
    model = fastrnn.Sequential(
        make("LSTM", 5, 6, proj_size=2, num_layers=2), fastrnn.Linear(2, 3, activation="relu")
    )
    stages = [stage for stage, _ in model._stages(4, "int8")]
    program.compile_described(program._described(stages, True))
    assert [team for _, team in made] == [False, True]
    for own, team in made:
        assert program._name(own, team) == program._name(stages, team)
    with pytest.raises(KeyError, match="wanted other"):
        program.compile_described(
            '[false, [["rnn", "other", "float32", "full", 1, 1, 1, 1, false]]]'
        )
