"""What torch.compile has to leave alone: kernels, and all that hands memory's addresses to them."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from torch._compile import _disable_dynamo

Made = TypeVar("Made", bound=Callable[..., Any])


def outside_of_graphs(function: Made) -> Made:
    """A function that is never traced, nor what it calls; a graph that comes to it breaks."""
    outside = _disable_dynamo(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        # Else the call would import torch's compiler, which takes longer than all the rest.
        return (outside if "torch._dynamo" in sys.modules else function)(*arguments)

    return cast(Made, call)
