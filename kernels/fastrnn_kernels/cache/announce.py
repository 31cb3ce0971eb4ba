"""Says that a kernel is being compiled, where that takes so long that a user would wonder."""

import logging
import threading
import weakref
from typing import Any

from numba.core import event

#: Seconds before anything is said.
PATIENCE = 2.0

_log = logging.getLogger("fastrnn")


class _Announcer(event.Listener):  # type: ignore[misc]
    """Hears of every function that Numba compiles, and minds the kernels among them."""

    def __init__(self) -> None:
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._timers: dict[tuple[int, int], threading.Timer] = {}

    def watch(self, dispatcher: Any, name: str) -> None:
        self._names[dispatcher] = name

    def _key(self, happening: event.Event) -> tuple[int, int]:
        return threading.get_ident(), id(happening.data["dispatcher"])

    def on_start(self, event: event.Event) -> None:
        name = self._names.get(event.data["dispatcher"])
        if name is None:
            return
        timer = threading.Timer(PATIENCE, self._say, (name,))
        timer.daemon = True
        self._timers[self._key(event)] = timer
        try:
            timer.start()
        except RuntimeError:  # no more threads at exit, or at the system's limit
            del self._timers[self._key(event)]

    def on_end(self, event: event.Event) -> None:
        timer = self._timers.pop(self._key(event), None)
        if timer is not None:
            timer.cancel()

    @staticmethod
    def _say(name: str) -> None:
        _log.warning(
            "compiling the kernel %s, once for this machine; `fastrnn warmup` does so ahead of "
            "time",
            name,
        )


_announcer = _Announcer()
event.register("numba:compile", _announcer)


def announce(dispatcher: Any, name: str) -> None:
    """Announce that a kernel is being compiled, each time that takes longer than PATIENCE."""
    _announcer.watch(dispatcher, name)
