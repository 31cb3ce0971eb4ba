"""What a path prepares for a shape, kept with the weights until others push it out."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

#: Plans of one direction of one layer.
KEPT = 16


class Plans:
    """The plans that were used last, by key. Threads may share it."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The plan of a key, made if there is none."""
        with self._lock:
            if key not in self._plans:
                self._plans[key] = make()
                if len(self._plans) > KEPT:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(key)
            return self._plans[key]
