"""Says that a kernel is being compiled, where that takes so long that a user would wonder."""

import _thread
import logging
import threading
import weakref
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

from numba.core import event

from fastrnn_kernels.handlers import pass_on

#: Seconds before anything is said.
PATIENCE = 2.0

_log = logging.getLogger("fastrnn")


class _Announcer(event.Listener):  # type: ignore[misc]
    """Hears of every function that Numba compiles, and minds the kernels among them."""

    def __init__(self) -> None:
        self._words: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._running: dict[tuple[int, int], tuple[SimpleQueue[None], float]] = {}

    def watch(self, dispatcher: Any, words: str) -> None:
        self._words[dispatcher] = words

    def _key(self, happening: event.Event) -> tuple[int, int]:
        return threading.get_ident(), id(happening.data["dispatcher"])

    def on_start(self, event: event.Event) -> None:
        words = self._words.get(event.data["dispatcher"])
        if words is None:
            return
        done: SimpleQueue[None] = SimpleQueue()
        self._running[self._key(event)] = done, perf_counter()
        try:
            # One call of C's: `threading` may tell of what a signal's handler raises meanwhile as
            # of a KeyError.
            _thread.start_new_thread(self._say, (words, done))
        except RuntimeError as error:  # no more threads at exit, or at the system's limit
            pass_on(error)
            del self._running[self._key(event)]

    def on_end(self, event: event.Event) -> None:
        done, start = self._running.pop(self._key(event), (None, 0.0))
        if done is None:
            return
        done.put(None)
        seconds = perf_counter() - start
        if seconds > PATIENCE:
            words = self._words[event.data["dispatcher"]]
            _log.warning("compiling %s for this CPU, once: %.0f s", words, seconds)

    @staticmethod
    def _say(words: str, done: "SimpleQueue[None]") -> None:
        try:
            done.get(timeout=PATIENCE)
            return
        except Empty:
            pass
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
