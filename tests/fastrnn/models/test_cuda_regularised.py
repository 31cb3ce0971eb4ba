"""Dropout inside of layers, and zoneout, on the GPU, on Numba's simulator: the CPU's masks.

NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 pytest tests -k cuda
"""

import numpy as np
import pytest
from numba import config

import fastrnn
import reference
from cases import assert_close
from regularised import Regularised

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="needs Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1",
)

T, B, I, H = 3, 2, 2, 5
LENGTHS = [3, 2]
CASES = {
    "drawn": ("LSTM", {
        "zoneout": (0.3, 0.4), "recurrent_dropout": 0.25, "recurrent_dropout_on": "candidate",
        "input_dropout": 0.2,
    }),
    "masked": ("LSTM", {"recurrent_dropout": 0.4, "proj_size": 4, "weight_dropout": 0.3}),
    "late": ("GRU", {"recurrent_dropout": 0.4, "reset_after": False, "zoneout": 0.2}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case):
    kind, options = CASES[case]
    make = getattr(fastrnn, kind)
    layer = make(I, H, bidirectional=True, dtype="float64", device="cuda", seed=0, **options)
    random = np.random.default_rng(1)
    x = random.standard_normal((T, B, I))
    dy = random.standard_normal((T, B, 2 * layer.state_size))
    key = int(np.random.default_rng(3).integers(2**64, dtype=np.uint64))
    own = {"reset_after": False} if kind == "GRU" else {}
    of, parameters = Regularised(layer, key, **own), layer.state_dict()
    for _ in range(3):  # to warm up, to be recorded, and replayed
        y, _, tape = layer.forward(x, lengths=LENGTHS, rng=np.random.default_rng(3))
        found = layer.backward(tape, dy)
        assert_close(y, of(parameters, x, LENGTHS), 1e-12, "y")

    def loss(given):
        moved = of(parameters | given, given.get("x", x), LENGTHS)
        return reference.inner([moved], [dy])

    given = {"x": x, "weight_hh_l0": parameters["weight_hh_l0"]}
    for name, wanted in reference.finite_differences(loss, given).items():
        # Central differences err by some 1e-10 (see reference.STEP) times a few dozen terms.
        assert_close(({"x": found.x} | found.parameters)[name], wanted, 1e-8, name)
    expected = Regularised(layer, None, **own)
    assert_close(layer(x, lengths=LENGTHS)[0], expected(parameters, x, LENGTHS), 1e-12, "y")


def test_a_reset_begins_anew_with_the_same_mask():
    layer = fastrnn.GRU(I, H, recurrent_dropout=0.4, dtype="float64", device="cuda", seed=0)
    x = np.random.default_rng(1).standard_normal((T, B, I))
    reset = np.zeros((T, B), bool)
    reset[1] = True
    y, _, tape = layer.forward(x, reset=reset, rng=np.random.default_rng(6))
    found = layer.backward(tape, y)
    rest, _, tape = layer.forward(x[1:], rng=np.random.default_rng(6))
    assert_close(y[1:], rest, 1e-12)
    assert_close(found.x[1:], layer.backward(tape, rest).x, 1e-12)
