"""`@fastrnn.cell` as its users have it: arguments, errors, classes, files."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn.equations import EquationError, sigmoid, tanh


@fastrnn.cell(gates="i f g o", states="h c")
def Mine(a, s):
    """As the LSTM."""
    i = sigmoid(a.i)
    f = sigmoid(a.f)
    g = tanh(a.g)
    o = sigmoid(a.o)
    c = f * s.c + i * g
    return o * tanh(c), c


@fastrnn.cell(gates="r z n")
def MyGRU(a, s):
    r = sigmoid(a.r)
    z = sigmoid(a.z)
    n = tanh(a.n.x + r * a.n.h)
    return (1 - z) * n + z * s.h


PAIRS = [(Mine, fastrnn.LSTM), (MyGRU, fastrnn.GRU)]


@pytest.mark.smoke
def test_the_class():
    assert issubclass(Mine, fastrnn.models.layer.Layer)
    assert Mine.__doc__.startswith("As the LSTM.")
    assert "i, f, g, o" in Mine.__doc__
    assert (Mine.__name__, Mine.__module__) == ("Mine", __name__)
    assert repr(Mine(2, 3)) == (
        "Mine(input_size=2, hidden_size=3, num_layers=1, bias=True, batch_first=False, "
        "dropout=0.0, bidirectional=False, device='auto', dtype='float32')"
    )
    assert repr(Mine.Cell(2, 3)).startswith("MineCell(input_size=2")
    assert "def forward(sums, states):" in Mine.source
    assert Mine.Cell.source == Mine.source


@pytest.mark.parametrize(("mine", "built_in"), PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_of_the_built_in(mine, built_in, dtype):
    """Forward passes have the same operations, and so the same bits; backward passes nearly."""
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True, "dtype": dtype}
    one, other = (kind(5, 7, seed=0, **options) for kind in (mine, built_in))
    x = np.random.default_rng(0).standard_normal((3, 11, 5)).astype(dtype)
    y, _, tape = one.forward(x, lengths=[11, 0, 4], training=False)
    wanted, _, wanted_tape = other.forward(x, lengths=[11, 0, 4], training=False)
    assert np.array_equal(y, wanted)
    mine_found = one.backward(tape, y)
    its = other.backward(wanted_tape, wanted)
    rtol = 1e-5 if dtype == "float32" else 1e-12  # rounding, of sums over 11 steps of 3 rows
    for name, value in its.parameters.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(mine_found.parameters[name], value, rtol=0, atol=rtol * scale)
    stream, its_stream = (kind(5, 7, seed=0).stream() for kind in (mine, built_in))
    row = x[0, 0].astype(np.float32)
    assert np.array_equal(stream.step(row), its_stream.step(row))


def test_gates_of_the_tape():
    layer = Mine(3, 4, seed=0)
    x = np.ones((2, 1, 3), np.float32)
    _, _, tape = layer.forward(x, return_gates=True)
    _, _, wanted = fastrnn.LSTM(3, 4, seed=0).forward(x, return_gates=True)
    for gate in "ifgo":
        assert np.array_equal(tape.gates[0][gate], wanted.gates[0][gate])


def test_copies_and_pickles():
    for one in (Mine(2, 3, seed=0), Mine.Cell(2, 3, seed=0)):
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            assert type(other) is type(one)
            for name, value in one.parameters.items():
                assert np.array_equal(other.parameters[name], value)


def test_a_cell_that_is_defined_anew_takes_its_place():
    """And old layers keep their equations."""

    def define(factor):
        @fastrnn.cell(gates="n")
        def Again(a, s):
            return tanh(a.n * factor)

        return Again

    first, second = define(1.0), define(0.5)
    one, other = first(2, 3, seed=0), second(2, 3, seed=0)
    x = np.ones((1, 1, 2), np.float32)
    y, half = one(x)[0], other(x)[0]
    assert not np.array_equal(y, half)
    np.testing.assert_allclose(np.arctanh(half) * 2, np.arctanh(y), rtol=1e-5)
    assert np.array_equal(one(x)[0], y)
    assert fastrnn.Again is second


def test_files_of_other_equations_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"

    def define(factor):
        @fastrnn.cell(gates="n")
        def Changing(a, s):
            return tanh(a.n * factor)

        return Changing

    fastrnn.Sequential(define(1.0)(2, 3), fastrnn.Linear(3, 1)).save(path)
    define(2.0)
    with pytest.raises(ValueError, match="Changing had other equations"):
        fastrnn.load(path)
    define(1.0)
    assert type(fastrnn.load(path)[0]).__name__ == "Changing"


def test_files_want_the_definition(tmp_path):
    """In a process that has not the module."""
    layer = tmp_path / "layer.safetensors"
    model = tmp_path / "model.safetensors"
    Mine(2, 3).save(layer)
    fastrnn.Sequential(Mine(2, 3), fastrnn.Linear(3, 1)).save(model)
    code = """
import sys, fastrnn
for path in sys.argv[1:]:
    try:
        fastrnn.load(path)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(layer), str(model)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = "import the module that defines Mine by @fastrnn.cell first"
    assert done.stdout.count(told) == 2, done.stdout


def test_streams_of_other_equations_refuse_a_snapshot():
    def define(factor):
        @fastrnn.cell(gates="n")
        def Snapped(a, s):
            return tanh(a.n * factor)

        return Snapped(2, 3, seed=0)

    one, other = define(1.0).stream(), define(2.0).stream()
    with pytest.raises(ValueError, match="snapshot"):
        other.restore(one.snapshot())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"gates": ""}, "gates names none"),
        ({"gates": "n n"}, "names one twice"),
        ({"gates": "n 1"}, "gates has '1', wanted names"),
        ({"gates": "n", "states": "c h"}, "'h', which is the output, first"),
        ({"gates": "n", "per_unit": "n"}, "'n' is named twice among gates and per_unit"),
        ({"gates": "n", "states": "h c", "per_unit": "c"}, "named in states and in per_unit"),
        ({"gates": "n", "per_unit": "weight_hh"}, "weight_hh"),
        ({"gates": "n", "per_unit": "_u"}, "per_unit has '_u'"),
        ({"gates": "if n"}, "gates has 'if', a word of Python's"),
        ({"gates": 3}, "gates is 3, wanted names"),
    ],
)
def test_bad_arguments(arguments, told):
    with pytest.raises(EquationError, match=told):

        @fastrnn.cell(**arguments)
        def Bad(a, s, *p):
            return tanh(a.n)


@pytest.mark.parametrize("name", ["LSTM", "RNN", "Linear", "GRUCell", "MyCell"])
def test_names_that_are_taken(name):
    def equations(a, s):
        return tanh(a.n)

    equations.__name__ = name
    with pytest.raises(EquationError, match="call"):
        fastrnn.cell(gates="n")(equations)
    assert fastrnn.LSTM(2, 3).kind == "LSTM"


def test_what_is_no_function():
    with pytest.raises(EquationError, match=r"@fastrnn\.cell"):
        fastrnn.cell(gates="n")(3)


def test_a_failed_definition_leaves_the_old_one():
    @fastrnn.cell(gates="n")
    def Kept(a, s):
        return tanh(a.n)

    with pytest.raises(EquationError):

        @fastrnn.cell(gates="n")
        def Kept(a, s):
            return tanh(a.missing)

    assert fastrnn.Kept(2, 3)(np.ones((1, 1, 2), np.float32))[0].shape == (1, 1, 3)


def test_the_description_of_a_file(tmp_path):
    path = tmp_path / "mine.safetensors"
    Mine(2, 3).save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    description = json.loads(header["__metadata__"]["fastrnn"])
    assert description["class"] == "Mine"
    assert description["config"]["equations"] == Mine._derived.digest
