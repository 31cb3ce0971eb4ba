"""Says that a kernel is being compiled, where that takes so long that a user would wonder."""

import logging
import threading
import weakref
from time import perf_counter
from typing import Any

from numba.core import event

#: Seconds before anything is said.
PATIENCE = 2.0

_log = logging.getLogger("fastrnn")


class _Announcer(event.Listener):  # type: ignore[misc]
    """Hears of every function that Numba compiles, and minds the kernels among them."""

    def __init__(self) -> None:
        self._words: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._running: dict[tuple[int, int], tuple[threading.Timer, float]] = {}

    def watch(self, dispatcher: Any, words: str) -> None:
        self._words[dispatcher] = words

    def _key(self, happening: event.Event) -> tuple[int, int]:
        return threading.get_ident(), id(happening.data["dispatcher"])

    def on_start(self, event: event.Event) -> None:
        words = self._words.get(event.data["dispatcher"])
        if words is None:
            return
        timer = threading.Timer(PATIENCE, self._say, (words,))
        timer.daemon = True
        self._running[self._key(event)] = timer, perf_counter()
        try:
            timer.start()
        except RuntimeError:  # no more threads at exit, or at the system's limit
            del self._running[self._key(event)]

    def on_end(self, event: event.Event) -> None:
        timer, start = self._running.pop(self._key(event), (None, 0.0))
        if timer is None:
            return
        timer.cancel()
        seconds = perf_counter() - start
        if seconds > PATIENCE:
            words = self._words[event.data["dispatcher"]]
            _log.warning("compiling %s for this CPU, once: %.0f s", words, seconds)

    @staticmethod
    def _say(words: str) -> None:
        _log.warning(
            "compiling %s for this CPU, once; `fastrnn warmup` does so ahead of time", words
        )


_announcer = _Announcer()
event.register("numba:compile", _announcer)


def announce(dispatcher: Any, words: str) -> None:
    """Announce that a kernel is being compiled, each time that takes longer than PATIENCE.

    words: what it is, as in "the LSTM's backward pass". It is said once it takes so long, and again
    with the seconds when it is done.
    """
    _announcer.watch(dispatcher, words)
