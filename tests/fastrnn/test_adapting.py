"""What adapters share: what is made of arrays is made anew when they change, and no sooner."""

import numpy as np
import pytest

from fastrnn.adapting import Kept, level_of_user


def keep(kept, key, arrays, made):
    """Asks for what is made of arrays; notes in `made` when it is made anew."""

    def make(copies):
        made.append([copy.copy() for copy in copies])
        return len(made)

    return kept.of(key, lambda copies: copies.equal(arrays), lambda: arrays, make)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_is_made_anew_when_a_value_has_changed(dtype):
    kept, made = Kept(), []
    arrays = [np.arange(5, dtype=dtype), np.ones((2, 3), dtype)]
    assert keep(kept, "a", arrays, made) == 1
    assert keep(kept, "a", [array.copy() for array in arrays], made) == 1
    for at in range(5):
        arrays[0][at] += 1
        assert keep(kept, "a", arrays, made) == at + 2, f"value {at} was not looked at"
    np.testing.assert_array_equal(made[-1][0], np.arange(5) + 1)
    assert keep(kept, "b", arrays, made) == 7, "another key"
    assert keep(kept, "b", arrays[:1], made) == 8, "fewer arrays"


def test_what_was_copied_stays_when_the_framework_writes():
    kept, array = Kept(), np.zeros(3, np.float32)
    copies = kept.of(None, lambda copies: True, lambda: [array], lambda copies: copies)
    array[:] = 7
    np.testing.assert_array_equal(copies[0], np.zeros(3))


def test_the_level_is_that_of_the_first_line_that_is_not_between():
    def inner():
        return level_of_user(lambda frame: frame.f_code.co_name in ("inner", "outer"))

    def outer():
        return inner()

    assert inner() == 2
    assert outer() == 3
