"""Every contender against the truth, in this process, on odd shapes."""

import importlib

import numpy as np
import pytest

from fastrnn.bench.cases import CELLS, DTYPES, WRITTEN, Case, Shape, cases_of
from fastrnn.bench.contenders import BUILT_IN, COMPILED, OWN, PEERS, peer
from fastrnn.bench.data import sample
from fastrnn.bench.parity import difference, truth
from fastrnn.cells import FILES
from fastrnn_kernels.cells import registry

#: Those whose kernels other tests compile, too.
COMPILED_CELLS = ("rnn", "rnn-relu", "lstm", "gru")
SHAPES = {
    "quick": (Shape(5, 3, 4, 7), Shape(1, 1, 1, 1)),
    "ragged": (Shape(6, 5, 3, 9),),
    "stream": (Shape(1, 1, 3, 5),),
}
CASES = [
    case
    for suite, shapes in SHAPES.items()
    for dtype in DTYPES
    if dtype != "int8" or suite == "stream"
    for case in cases_of(suite, COMPILED_CELLS, shapes, dtype=dtype)
    # Each stream takes seconds to compile, and what a contender makes of a cell does not depend
    # on how floats are stored.
    if suite != "stream" or dtype == "float32" or case.cell == "lstm"
]
CASES += cases_of("stream", ("gru",), (Shape(1, 2, 1, 1),))
#: Cells by their equations: beside fastrnn one with parameters of each unit.
DEFINED = [
    case
    for suite, shapes in SHAPES.items()
    for case in cases_of(suite, ("gru-reset-before", *FILES), shapes, dtype="float64")
]
PEEPHOLES = [case for case in DEFINED if case.cell == "PeepholeLSTM" and case.suite == "quick"]
SLOW = PEERS["torch.compile"]  # which takes minutes: `fastrnn bench` compares its answers, too


@pytest.mark.parametrize(
    ("contender", "case"),
    [
        pytest.param(contender, case, id=f"{contender.name} {case.suite} {case} {case.dtype}")
        for contender in (OWN, COMPILED, *PEERS.values())
        for case in CASES + (PEEPHOLES if contender is OWN else DEFINED)
        if contender.takes(case) and contender is not SLOW
    ],
)
def test_it_gives_the_truth_for_one_input_after_another(contender, case):
    for package in contender.packages:
        pytest.importorskip(package)
    program = importlib.import_module(contender.module).build(case, 1, "cpu")
    loaded = [program.load(sample(case, index)) for index in range(2)]
    for index in (0, 1, 0):
        getattr(program, "rewind", lambda loaded: None)(loaded[index])
        answer = program.read(program.run(loaded[index]))
        assert difference(answer, truth(case, index), case.dtype) is None


def test_onnxruntime_infers_in_float32_only():
    own = PEERS["onnxruntime"]
    takes = {(case.pass_, own.dtype(case)) for case in CASES + DEFINED if own.takes(case)}
    assert takes == {("forward", "float32")}


def test_beside_bfloat16_peers_compute_in_it_where_they_can():
    case = Case("sequence", "lstm", Shape(5, 3, 2, 7), "forward", "bfloat16")
    assert OWN.dtype(case) == "bfloat16"
    found = {name: other.dtype(case) for name, other in PEERS.items() if other.takes(case)}
    low, full = "bfloat16", "float32"
    assert found == {"torch": low, "onnxruntime": full, "openvino": low, "numpy": full}
    step = Case("stream", "lstm", Shape(1, 1, 2, 7), "forward", "bfloat16")
    assert {other.dtype(step) for other in PEERS.values()} == {full}


def test_what_is_written_with_equations_is_measured_beside_what_is_built_in():
    for cell, kind in WRITTEN.items():
        shape = Shape(5, 3, 4, 7)
        case = Case("train", cell, shape, "train", "float64")
        assert BUILT_IN.takes(case)
        assert not BUILT_IN.takes(Case("train", kind, shape, "train", "float64"))
        assert not any(peer.takes(case) for peer in PEERS.values())
        program = importlib.import_module(BUILT_IN.module).build(case, 1, "cpu")
        answer = program.read(program.run(program.load(sample(case, 0))))
        assert difference(answer, truth(case), case.dtype) is None


@pytest.mark.parametrize("cell", CELLS)
def test_repeated_steps_are_those_of_one_input_after_the_other(cell):
    (case,) = cases_of("stream", cells=(cell,), shapes=(Shape(1, 1, 3, 5),))
    module = importlib.import_module(COMPILED.module)
    one, many = (module.build(case, 1, "cpu") for _ in range(2))
    streams = [program.loaded[0][0] for program in (one, many)]
    assert np.array_equal(*(np.ravel(stream.state) for stream in streams))
    for t in range(11):
        streams[0].step(one.inputs[t % len(one.inputs)])
    many.repeat(11)
    np.testing.assert_array_equal(*(np.ravel(stream.state) for stream in streams))


def test_compiled_steps_take_part_where_a_call_is_a_step():
    assert {case.suite for case in CASES if COMPILED.takes(case)} == {"stream"}


def test_all_cells_are_in_the_cases():
    own = {name for name, entry in registry.CELLS.items() if not entry.defined}
    assert {case.cell for case in CASES + DEFINED} == {*own, *FILES}


def test_a_peer_of_ones_own():
    mine = peer("mine=numpy.linalg")
    assert (mine.name, mine.module, mine.missing) == ("mine", "numpy.linalg", ())
    assert peer("mine=no_such_module.at_all").missing == ("no_such_module",)


@pytest.mark.parametrize("text", ["tensorflow", "", "=module", "name="])
def test_an_unknown_peer_is_refused(text):
    with pytest.raises(ValueError, match="unknown peer") as error:
        peer(text)
    assert "torch, torch.compile, " in str(error.value)
    assert "onnxruntime, openvino, numpy, or name=module" in str(error.value)
