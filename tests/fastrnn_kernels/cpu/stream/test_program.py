"""A stream's function is put together so that compilers can take it."""

from cases import make
from fastrnn_kernels.cpu.product.storage import FULL
from fastrnn_kernels.cpu.stream import functions


def test_calls_of_a_deep_stack_nest_no_deeper_than_they_have_to():
    """One in the other, those of forty layers would be more than a compiler takes."""

    def depth(function):
        cells = function.py_func.__closure__
        held = dict(zip(function.py_func.__code__.co_freevars, cells, strict=True))
        if "then" not in held:
            return 0
        return 1 + max(depth(held[name].cell_contents) for name in ("first", "then"))

    stages = [stage for stage, _ in make("RNN-tanh", 2, 3, num_layers=40)._stages(1, FULL)]
    assert (
        depth(functions._stacked(list(functions.places(stages)), False)) == 6
    )  # of 2 ** 6 at most
