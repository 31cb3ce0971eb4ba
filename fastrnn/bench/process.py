"""The other end of a worker: starting it, asking it, stopping it while others are timed."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import Any, Self

#: Whether a process can be stopped and continued here; Windows has no such signals.
CAN_STOP = hasattr(signal, "SIGSTOP")

#: Every thread pool that a contender may bring along obeys one of these.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class WorkerError(Exception):
    """A contender raised, died, or gave no answer in time; the text says which."""


class LateError(WorkerError):
    """A contender gave no answer in time."""


def _environment(threads: int | None) -> dict[str, str]:
    # The worker is to import what this process would, however this one came by its paths.
    paths = [path or os.getcwd() for path in sys.path]
    told = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **told, "PYTHONPATH": os.pathsep.join(paths)}


class Worker:
    """A fresh Python process, stopped whenever it is not being asked something.

    Args:
        threads: how many threads its libraries may use; None for what each takes by itself.
        timeout: seconds that one answer may take.
    """

    def __init__(self, threads: int | None, timeout: float) -> None:
        self.timeout = timeout
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fastrnn.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(threads),
            # In a group of its own, so that an interrupt from the keyboard reaches this process
            # only, which then ends the worker; and so that the system ends a stopped worker
            # whose parent was killed.
            process_group=0 if os.name == "posix" else None,
        )
        self._replies: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._replies.put(pickle.load(self._process.stdout))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self._replies.put(("end", None))

    def _signal(self, name: str) -> None:
        # that the process is gone is found out, and said, where its answer is missed
        if CAN_STOP and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def pause(self) -> None:
        """Stop all its threads, idle ones that spin included."""
        self._signal("SIGSTOP")

    def send(self, method: str, *arguments: Any) -> None:
        """Let it run, and ask for something without waiting."""
        self._signal("SIGCONT")
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((method, arguments), self._process.stdin)
            self._process.stdin.flush()

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the answer, then stop it.

        Args:
            timeout: seconds, where they are not those of all answers.

        Raises:
            LateError: if it took longer than the timeout.
            WorkerError: if it raised or died.
        """
        timeout = timeout or self.timeout
        try:
            kind, value = self._replies.get(timeout=timeout)
        except queue.Empty:
            raise LateError(f"gave no answer within {timeout:g} s") from None
        if kind == "end":
            self._replies.put((kind, value))  # for whoever asks again
            raise WorkerError(self._death())
        self.pause()
        if kind == "error":
            raise WorkerError(value)
        return value

    def ask(self, method: str, *arguments: Any) -> Any:
        """`send`, then `receive`."""
        self.send(method, *arguments)
        return self.receive()

    def _death(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"its process ended with {how}", *last])

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
