"""Draws by counter: Philox's published values, and masks from them."""

import numpy as np
import pytest

import philox
from fastrnn_kernels import draws

#: Counter, key and result, from the known answers of Random123, the authors' own library.
KNOWN = [
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.smoke
@pytest.mark.parametrize(("counter", "key", "wanted"), KNOWN)
def test_published_values(counter, key, wanted):
    counter, key, wanted = map(words, (counter, key, wanted))
    assert [*philox.philox(counter, key)] == wanted
    given = [np.uint64(word) for word in counter + key]
    assert [*draws.philox(*given)] == wanted
    many = draws.philox(*(np.full(3, word) for word in given))
    np.testing.assert_array_equal(many, np.repeat(np.array(wanted)[:, None], 3, axis=1))


@pytest.mark.parametrize("width", [1, 4, 7])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_masks(width, rate):
    key = 0xFEDCBA9876543210
    found = draws.Key(key, 5).rows(draws.RECURRENT, 3, width, rate, np.float32)
    wanted = philox.dropout(key, philox.RECURRENT, 5, 3, width, rate)
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_shares():
    """Of all, of each unit and of each row the share is the rate, and keys are independent."""
    rate, rows, width = 0.2, 400, 300
    one, other = (
        draws.Key(key).rows(draws.INPUT, rows, width, rate, np.float64) == 0 for key in (1, 2)
    )
    for found, wanted in ((one, rate), (one & other, rate**2), (one[1:] & one[:-1], rate**2)):
        for axis in (None, 0, 1):
            share = found.mean(axis=axis)
            n = found.size / share.size
            # Five deviations of independent draws; the keys are fixed, so it holds or it does not.
            assert np.abs(share - wanted).max() < 5 * np.sqrt(wanted * (1 - wanted) / n)


def test_what_a_draw_depends_on():
    """On the key, both of its halves, the pass and what it is for."""
    masks = [
        draws.Key(key, number).rows(what, 4, 64, 0.5, np.float32)
        for key, number, what in ((1, 0, 0), (2, 0, 0), (1 + 2**32, 0, 0), (1, 1, 0), (1, 0, 1))
    ]
    for n, one in enumerate(masks):
        assert all((one != other).any() for other in masks[:n])
