"""Cells that were derived, held against those written by hand, and against differences."""

import numpy as np
import pytest

import fastrnn_kernels.cpu  # noqa: F401  (registers the CPU's forms of the functions)
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.cells.lstm import LSTM
from fastrnn_kernels.cells.rnn import RNN_RELU, RNN_TANH
from fastrnn_kernels.equations import functions as f
from fastrnn_kernels.equations.check import check
from fastrnn_kernels.equations.define import define
from fastrnn_kernels.equations.errors import EquationError
from fastrnn_kernels.equations.functions import relu, sigmoid, softplus, tanh

#: In float64, of sums and products of a few numbers near 1.
ROUNDING = 1e-14


def lstm(a, s):
    i = sigmoid(a.i)
    f = sigmoid(a.f)
    g = tanh(a.g)
    o = sigmoid(a.o)
    c = f * s.c + i * g
    return o * tanh(c), c


def gru(a, s):
    r = sigmoid(a.r)
    z = sigmoid(a.z)
    n = tanh(a.n.x + r * a.n.h)
    return (1 - z) * n + z * s.h


def gru_reset_before(a, s):
    r = sigmoid(a.r)
    z = sigmoid(a.z)
    n = tanh(a.n(r * s.h))
    return (1 - z) * n + z * s.h


def rnn_tanh(a, s):
    return tanh(a.h)


def rnn_relu(a, s):
    return relu(a.h)


BY_HAND = [(lstm, LSTM), (gru, GRU), (rnn_tanh, RNN_TANH), (rnn_relu, RNN_RELU)]
ALL = [*BY_HAND, (gru_reset_before, GRU_RESET_BEFORE)]


def derived(function, cell):
    return define(function, cell.gates, cell.states).cell


@pytest.mark.parametrize(("function", "by_hand"), ALL, ids=lambda one: getattr(one, "name", ""))
def test_the_same_form_as_by_hand(function, by_hand):
    cell = derived(function, by_hand)
    for name in ("sums", "states", "apart", "late", "x_gates", "h_gates", "K", "reads_h"):
        assert getattr(cell, name) == getattr(by_hand, name), name
    assert set(cell.saved) == set(by_hand.saved)


@pytest.mark.parametrize(("function", "by_hand"), BY_HAND, ids=lambda one: getattr(one, "name", ""))
def test_the_same_values_as_by_hand(function, by_hand):
    cell, rng = derived(function, by_hand), np.random.default_rng(0)
    for _ in range(20):
        sums, states = map(tuple, (rng.normal(size=by_hand.S), rng.normal(size=by_hand.N)))
        d_new = tuple(rng.normal(size=by_hand.N))
        new, saved = cell.forward(sums, states)
        expected_new, expected_saved = by_hand.forward(sums, states)
        assert new == expected_new  # bit for bit: the equations are the user's, word for word
        assert dict(zip(cell.saved, saved, strict=True)) == dict(
            zip(by_hand.saved, expected_saved, strict=True)
        )
        found = cell.backward(d_new, saved, states)
        expected = by_hand.backward(d_new, expected_saved, states)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.smoke
@pytest.mark.parametrize(("function", "by_hand"), ALL, ids=lambda one: getattr(one, "name", ""))
def test_derivatives_against_differences(function, by_hand):
    assert check(by_hand).passed
    assert check(derived(function, by_hand)).passed


FUNCTIONS = [
    f.absolute, f.cos, f.elu, f.erf, f.exp, f.expm1, f.gelu, f.hard_sigmoid, f.hard_tanh,
    f.leaky_relu, f.logsigmoid, f.mish, f.relu, f.selu, f.sigmoid, f.silu, f.sin, f.softplus,
    f.softsign, f.tanh, lambda x: f.log(f.exp(x) + 1), lambda x: f.log1p(x * x),
    lambda x: f.sqrt(x * x + 1), lambda x: f.clip(x, -0.5, 0.7), lambda x: f.maximum(x, x * x),
    lambda x: f.minimum(x, 0.3), lambda x: x**3 / (1 + x**2), lambda x: 2 * f.sigmoid(2 * x) - 1,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_the_derivative_of_every_function(function):
    def one(a, s):
        c = function(a.g) + s.c * 0.5
        return function(c + a.o), c

    found = check(define(one, ("g", "o"), ("h", "c")).cell, points=50)
    assert found.passed, found


def test_a_wrong_derivative_is_found():
    """The check can fail: the sign of one gradient turned."""
    from dataclasses import replace

    def turned(d_states, saved, states):
        (d_a,), d_old = RNN_TANH.backward.py_func(d_states, saved, states)
        return (-d_a,), d_old

    wrong = check(replace(RNN_TANH, backward=turned))
    assert not wrong.passed
    assert wrong.errors["a_h"] > 0.1
    assert "WRONG" in str(wrong)


def test_values_of_one_sum_in_two_states():
    def twice(a, s):
        c = tanh(a.g + s.c)
        return c, c

    assert check(define(twice, ("g",), ("h", "c")).cell).passed


def test_numbers_that_are_closed_over_are_constants():
    def with_slope(slope):
        def leaky(a, s):
            return tanh(a.h * slope)

        return define(leaky, ("h",), ("h",))

    one, other = with_slope(0.25), with_slope(0.5)
    assert one.cell.forward((1.0,), (0.0,))[0][0] == np.tanh(0.25)
    assert one.cell.key != other.cell.key
    assert one.digest != other.digest
    assert one.digest == with_slope(0.25).digest


def test_the_digest_is_that_of_equations_not_of_names():
    def again(x, y):
        gate_in = sigmoid(x.i)
        cell = sigmoid(x.f) * y.c + gate_in * tanh(x.g)
        return sigmoid(x.o) * tanh(cell), cell

    def another(a, s):
        i = sigmoid(a.i)
        c = (1 - i) * s.c + i * tanh(a.g) + 0 * a.f
        return sigmoid(a.o + a.f) * tanh(c), c

    given = LSTM.gates, LSTM.states
    assert define(again, *given).digest == define(lstm, *given).digest
    assert define(another, *given).digest != define(lstm, *given).digest


def test_what_is_kept_may_be_said():
    def spelled(a, s):
        g = tanh(a.g)
        c = s.c * 0.5 + g
        out = tanh(c)
        return out, c

    given = ("g",), ("h", "c")
    usual = define(spelled, *given).cell
    saving = define(spelled, *given, save=("out",)).cell
    assert "out" not in usual.saved
    assert "out" in saving.saved
    sparing = define(lstm, LSTM.gates, LSTM.states, recompute=("g",)).cell
    assert "a_g" in sparing.saved
    assert "g" not in sparing.saved
    for cell in (usual, saving, sparing):
        assert check(cell).passed
    with pytest.raises(EquationError, match=r"'nothing' is none of i, f, g, o, c"):
        define(lstm, LSTM.gates, LSTM.states, save=("nothing",))
    with pytest.raises(EquationError, match=r"'g' is named in save and in recompute"):
        define(lstm, LSTM.gates, LSTM.states, save=("g",), recompute=("g",))


def test_the_source_reads_like_the_files_of_cells():
    source = define(lstm, LSTM.gates, LSTM.states).source
    for line in (
        "a_i, a_f, a_g, a_o = sums", "_, c = states", "c_new = f * c + i * g",
        "h_new = o * tanh(c_new)", "return (h_new, c_new), (i, f, g, o)",
        "tanh_c_new = tanh(f * c + i * g)", "return (da_i, da_f, da_g, da_o), (zero(dh_new), dc)",
    ):  # fmt: skip
        assert f"    {line}\n" in source, line
    assert max(map(len, source.splitlines())) <= 100


def test_nothing_of_the_function_runs_again():
    count = []

    def counted(a, s):
        count.append(1)
        return tanh(a.h)

    cell = define(counted, ("h",), ("h",)).cell
    assert check(cell).passed
    assert count == [1]


def stabilised(a, s):
    """The sLSTM: two states more, and a maximum."""
    log_f = -softplus(-a.f)
    m = f.maximum(log_f + s.m, a.i)
    i = f.exp(a.i - m)
    keep = f.exp(log_f + s.m - m)
    c = keep * s.c + i * tanh(a.z)
    n = keep * s.n + i
    return sigmoid(a.o) * (c / n), c, n, m


def test_a_cell_of_four_states():
    found = define(stabilised, ("i", "f", "z", "o"), ("h", "c", "n", "m"))
    assert check(found.cell).passed
    assert found.cell.N == 4


@pytest.mark.parametrize(
    ("function", "gates", "states", "told"),
    [
        (lambda a, s: tanh(a.x), "h", "h", r"no gate 'x': this cell has h; name it in gates"),
        (lambda a, s: tanh(a.h + s.c), "h", "h", r"no state 'c': this cell has h"),
        (lambda a, s: (tanh(a.h), s.h), "h", "h", r"returns 2 values, wanted 1: the new h"),
        (lambda a, s: tanh(a.h), "h", "hc", r"returns 1 values, wanted 2: the new h, c, in order"),
        (lambda a, s: 1.0, "h", "h", r"new h of <lambda> is 1.0, wanted what follows"),
        (lambda a, s: tanh(a.h), "hg", "h", r"gate 'g' of <lambda> is never used"),
        (lambda a, s: (tanh(a.h), a.h), "h", "hc", r"nothing reads the state 'c'"),
        (lambda a, s: tanh(a.h + a.h.x), "h", "h", r"used in several ways"),
        (lambda a, s: tanh(a.h.h + s.h), "h", "h", r"never uses a.h.x"),
        (lambda a, s: tanh(a.h.x), "h", "h", r"nothing reads a state"),
        (lambda a, s: tanh(a.n(0.5 * s.h)), "n", "h", r"with another gate"),
        (lambda a, s: a.z * a.n(2 * s.h) * a.m(3 * s.h), "znm", "h", r"different values"),
        (lambda a, s: a.z * tanh(a.n(2.0)), "zn", "h", r"the number 2 in place of h"),
        (lambda a: tanh(a.h), "h", "h", r"takes 1 arguments, wanted 2"),
        (lambda a, *s: tanh(a.h), "h", "h", r"wanted 2: the gates' sums, the states"),
        (lambda a, s: tanh(missing), "h", "h", r"NameError in the equations"),  # noqa: F821
        (lambda a, s: setattr(s, "h", a.h), "h", "h", r"change nothing in place"),
        (lambda a, s: None, "h", "h", r"new h of <lambda> is None"),
    ],
)  # fmt: skip
def test_bad_equations(function, gates, states, told):
    with pytest.raises(EquationError, match=told) as error:
        define(function, tuple(gates), tuple(states))
    assert "test_define.py, line" in str(error.value)


@pytest.mark.parametrize("name", ["a_n", "exp", "saved", "dh_new", "one", "where_at_most"])
def test_names_that_would_stand_for_two_things(name):
    def equations(a, s):
        return tanh(a.n + getattr(s, name)), a.n

    with pytest.raises(EquationError, match=f"'{name}' would stand for two things"):
        define(equations, ("n",), ("h", name))


def test_a_profiler_stays():
    import sys

    def profiler(frame, event, argument):
        pass

    sys.setprofile(profiler)
    try:
        define(rnn_tanh, ("h",), ("h",))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
