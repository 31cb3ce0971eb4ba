"""JSON, parsed once it is known that what it makes fits."""

import json
from typing import Any

from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError
from fastrnn_kernels import handlers

#: What Python takes for what begins with a character: a list, an object, a number or a name with
#: its place, half of a string.
_COSTS = {b"[": 88, b"{": 240, b",": 40, b'"': 32}


def check(data: bytes, budget: Budget, what: str) -> None:
    """Raise MisfitError where a text's values would take too much, of which it has not half."""
    budget.take(sum(cost * data.count(sign) for sign, cost in _COSTS.items()), what)


def parse(data: bytes, budget: Budget, what: str) -> Any:
    """The value of a text; raises MisfitError if it is none, or would take too much."""
    check(data, budget, what)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        handlers.pass_on(error)
        raise MisfitError(f"{what} is no JSON: {error}") from None
