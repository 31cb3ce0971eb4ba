"""Tokens, integers or strings, as numbers: 0 for those that training has not seen."""

from collections.abc import Sequence

import numpy as np

from fastrnn.arrays import Array


def known(rows: Sequence[Array]) -> Array:
    """All tokens of some sequences, sorted."""
    kinds = {_kind(one) for one in rows}
    if len(kinds) > 1:
        raise TypeError("X holds integers and strings, wanted tokens of one kind")
    found: Array = np.unique(np.concatenate(list(rows)))
    return found


def numbers(rows: Sequence[Array], vocabulary: Array) -> list[Array]:
    """The numbers of tokens, from 1 on in the order of the vocabulary."""
    found = []
    for k, one in enumerate(rows):
        if _kind(one) != _kind(vocabulary):
            raise TypeError(
                f"sequence {k} of X has tokens of dtype {one.dtype}, fitted were {vocabulary.dtype}"
            )
        at = np.minimum(np.searchsorted(vocabulary, one), len(vocabulary) - 1)
        found.append(np.where(vocabulary[at] == one, at + 1, 0).astype(np.int64))
    return found


def _kind(tokens: Array) -> str:
    return "strings" if tokens.dtype.kind == "U" else "integers"
