"""Every contender against the truth, in this process, on odd shapes."""

import importlib

import numpy as np
import pytest

from fastrnn.bench.cases import CELLS, DTYPES, Case, Shape, cases_of, measurable
from fastrnn.bench.contenders import COMPILED, OWN, PEERS, peer
from fastrnn.bench.data import sample
from fastrnn.bench.parity import difference, truth

CASES = [
    case
    for suite, shapes in {
        "quick": (Shape(5, 3, 4, 7), Shape(1, 1, 1, 1)),
        "ragged": (Shape(6, 5, 3, 9),),
        "stream": (Shape(1, 1, 3, 5),),
    }.items()
    for dtype in DTYPES
    if dtype != "int8" or suite == "stream"
    for case in cases_of(suite, tuple(measurable()), shapes, dtype=dtype)
    # Each stream takes seconds to compile, and what a contender makes of a cell does not depend
    # on how floats are stored.
    if suite != "stream" or dtype == "float32" or case.cell == "lstm"
]
CASES += cases_of("stream", ("gru",), (Shape(1, 2, 1, 1),))


@pytest.mark.parametrize(
    ("contender", "case"),
    [
        pytest.param(contender, case, id=f"{contender.name} {case.suite} {case} {case.dtype}")
        for contender in (OWN, COMPILED, *PEERS.values())
        for case in CASES
        if contender.takes(case)
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
    takes = {(case.pass_, own.dtype(case)) for case in CASES if own.takes(case)}
    assert takes == {("forward", "float32")}


def test_beside_bfloat16_peers_compute_in_it_where_they_can():
    case = Case("sequence", "lstm", Shape(5, 3, 2, 7), "forward", "bfloat16")
    assert OWN.dtype(case) == "bfloat16"
    assert all(other.takes(case) for other in PEERS.values())
    found = {name: other.dtype(case) for name, other in PEERS.items()}
    low, full = "bfloat16", "float32"
    assert found == {"torch": low, "onnxruntime": full, "openvino": low, "numpy": full}
    step = Case("stream", "lstm", Shape(1, 1, 2, 7), "forward", "bfloat16")
    assert {other.dtype(step) for other in PEERS.values()} == {full}


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
    assert {case.cell for case in CASES} == set(measurable())


def test_a_peer_of_ones_own():
    mine = peer("mine=numpy.linalg")
    assert (mine.name, mine.module, mine.missing) == ("mine", "numpy.linalg", ())
    assert peer("mine=no_such_module.at_all").missing == ("no_such_module",)


@pytest.mark.parametrize("text", ["tensorflow", "", "=module", "name="])
def test_an_unknown_peer_is_refused(text):
    with pytest.raises(ValueError, match="unknown peer") as error:
        peer(text)
    assert "torch, onnxruntime, openvino, numpy" in str(error.value)
