"""Classes that follow from the registry: found where they are written out, made where not."""

import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.models import classes, recurrent
from fastrnn.models.layer import Layer
from fastrnn_kernels.cells import registry
from fastrnn_kernels.cells.gru import GRU, GRU_RESET_BEFORE
from fastrnn_kernels.cells.registry import Entry, register


@pytest.fixture
def swapped():
    """A kind of two cells with an option, "before" the usual one."""
    register(Entry("swapped", GRU_RESET_BEFORE, "Swapped", {"when": "before"}))
    register(Entry("swapped-after", GRU, "Swapped", {"when": "after"}))
    yield fastrnn.Swapped
    for name in ("swapped", "swapped-after"):
        del registry.CELLS[name]
    for kind in ("Swapped", "SwappedCell"):
        recurrent.CLASSES.pop(kind, None)


def test_names_give_the_classes_written_out():
    for name, entry in registry.CELLS.items():
        layer, step = classes.layer_of(name, 3, 4), classes.step_of(name, 3, 4)
        assert type(layer) is getattr(fastrnn, entry.kind)
        assert type(step) is getattr(fastrnn, f"{entry.kind}Cell")
        assert layer._cell is step._cell is entry.cell


def test_a_class_is_made_once_with_the_kinds_options(swapped):
    assert swapped is fastrnn.Swapped
    assert "Cho et al." in swapped.__doc__  # the file of its equations
    assert "without proj_size; when is 'before' or 'after'." in swapped.__doc__
    layer = swapped(3, 4, 2, bidirectional=True, when="after", seed=0)
    assert repr(layer) == (
        "Swapped(input_size=3, hidden_size=4, num_layers=2, bias=True, batch_first=False, "
        "dropout=0.0, bidirectional=True, device='auto', dtype='float32', when='after')"
    )
    assert layer._cell is GRU
    assert swapped(3, 4)._cell is GRU_RESET_BEFORE
    assert fastrnn.SwappedCell(3, 4).config()["when"] == "before"
    x = np.ones((2, 1, 3), np.float32)
    wanted = fastrnn.GRU(3, 4, 2, bidirectional=True, seed=0)(x)[0]
    assert np.array_equal(layer(x)[0], wanted)
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is swapped
    assert again._cell is GRU
    assert np.array_equal(again(x)[0], wanted)


def test_options_are_checked_and_stay(swapped):
    with pytest.raises(ValueError, match="when is 'never', wanted one of 'before', 'after'"):
        swapped(3, 4, when="never")
    with pytest.raises(TypeError, match="Swapped has no argument 'reset_after'"):
        swapped(3, 4, reset_after=True)
    with pytest.raises(AttributeError, match="when of this Swapped is fixed at 'before'"):
        swapped(3, 4).when = "after"
    config = swapped(3, 4).config()
    del config["when"]
    with pytest.raises(TypeError, match="when of this Swapped is missing"):
        swapped._restored(config, {})


def test_what_is_not_registered_is_no_class():
    with pytest.raises(AttributeError, match="module 'fastrnn' has no attribute 'Swapped'"):
        _ = fastrnn.Swapped
    with pytest.raises(AttributeError, match="has no attribute 'NoneCell'"):
        _ = fastrnn.NoneCell


def test_a_class_below_another_may_take_what_it_likes():
    class Mine(fastrnn.GRU):
        def __init__(self, width):
            super().__init__(width, width, reset_after=False)

    assert Mine(3).config() == fastrnn.GRU(3, 3, reset_after=False).config()


def test_a_kind_is_of_one_class(swapped):
    """But a class written once more, as in a notebook, takes the place of the first."""
    with pytest.raises(ValueError, match=r"kind of .*Mine is 'LSTM', which .*LSTM has already"):

        class Mine(Layer):
            kind = "LSTM"

    with pytest.raises(ValueError, match=r"Swapped is 'Swapped', which fastrnn\.Swapped has"):
        type(swapped)("Swapped", (Layer,), {"kind": "Swapped"})
    assert fastrnn.Swapped is swapped
    again = type(swapped)("Swapped", (Layer,), {"kind": "Swapped", "__module__": "fastrnn"})
    assert fastrnn.Swapped is again
    assert classes.class_of("LSTM") is fastrnn.LSTM
