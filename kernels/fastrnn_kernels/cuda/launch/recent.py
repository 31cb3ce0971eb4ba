"""What a path prepares for a shape, kept with the weights until others push it out."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast

#: Plans of one direction of one layer, and the bytes of their arrays.
KEPT, KEPT_BYTES = 16, 256 << 20


class Plan(Protocol):
    """What is kept."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""


Made = TypeVar("Made", bound=Plan)


class Plans:
    """The plans that were used last, by key; at least the last. Threads may share it."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The plan of a key, made if there is none."""
        with self._lock:
            plans = self._plans
            if key not in plans:
                plans[key] = make()
                while len(plans) > 1 and (
                    len(plans) > KEPT or sum(plan.nbytes for plan in plans.values()) > KEPT_BYTES
                ):
                    plans.popitem(last=False)
            plans.move_to_end(key)
            return cast(Made, plans[key])
