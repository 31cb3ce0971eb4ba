"""The registry: what it refuses, and what it says of the cells it has."""

import pytest

from fastrnn_kernels.cells import registry
from fastrnn_kernels.cells.gru import GRU_RESET_BEFORE
from fastrnn_kernels.cells.lstm import LSTM
from fastrnn_kernels.cells.registry import Entry, register


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry("lstm", LSTM, "Other"), "'lstm' is registered already"),
        (Entry("other", LSTM, "not a name"), "kind of 'other' is 'not a name'"),
        (Entry("other", LSTM, "LSTMCell"), "kind of 'other' is 'LSTMCell'"),
        (Entry("other", LSTM, "LSTM"), "options of 'other' are {}, and 'lstm'"),
        (Entry("other", LSTM, "GRU", {"reset_after": True}), "options of 'other'"),
        (Entry("other", LSTM, "GRU", {"peepholes": True}), "options of 'other'"),
    ],
)
def test_what_would_make_two_cells_one_is_refused(entry, said):
    before = dict(registry.CELLS)
    with pytest.raises(ValueError, match=said):
        register(entry)
    assert before == registry.CELLS


def test_the_first_of_a_kind_is_the_usual_one():
    assert registry.kinds()[:3] == ("RNN", "LSTM", "GRU")
    assert registry.options_of("GRU") == {"reset_after": (True, False)}
    assert registry.options_of("RNN") == {"nonlinearity": ("tanh", "relu")}
    assert registry.options_of("LSTM") == {}


def test_a_cell_is_found_by_what_a_layer_says():
    assert registry.cell_of("LSTM") is LSTM
    assert registry.cell_of("GRU", reset_after=False) is GRU_RESET_BEFORE
    with pytest.raises(ValueError, match="LSTM has no cell with"):
        registry.cell_of("LSTM", reset_after=False)
