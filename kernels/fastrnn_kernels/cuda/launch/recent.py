"""What a path prepares for a shape, kept with the weights until others push it out."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, cast

#: How many stay for one direction of one layer, and the bytes of their arrays.
KEPT, KEPT_BYTES = 16, 256 << 20


class Prepared(Protocol):
    """What is kept."""

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""


Made = TypeVar("Made", bound=Prepared)


class Recent:
    """What was used last, by key; at least the last. Threads may share it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Prepared] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What a key stands for, made if there is none."""
        with self._lock:
            kept = self._kept
            if key not in kept:
                kept[key] = make()
                while len(kept) > 1 and (
                    len(kept) > KEPT or sum(one.nbytes for one in kept.values()) > KEPT_BYTES
                ):
                    kept.popitem(last=False)
            kept.move_to_end(key)
            return cast(Made, kept[key])
