"""What was measured on a machine, kept for it in a small file of the user's cache folder."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastrnn_kernels.cache.files import write_whole
from fastrnn_kernels.handlers import Suppressed, pass_on

#: Packages whose versions times depend on, as far as they are installed.
PACKAGES = ("numba", "numba-cuda", "numpy", "cupy-cuda13x", "cupy-cuda12x", "cupy")


@cache
def versions() -> dict[str, str]:
    """What times depend on beside the machine: all kernels, by a hash, and what compiles them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    found = {"kernels": digest.hexdigest()[:16]}
    for package in PACKAGES:
        with Suppressed(PackageNotFoundError):
            found[package] = version(package)
    return found


class Memo:
    """Seconds by name, of one machine.

    machine: what the seconds depend on (GPU, CPU, versions); another one has another file.
    folder: where the file lies; None, or one that cannot be written, keeps them in memory.

    Without a lock, which a forked child could inherit locked: threads and processes that write
    at once write whole files, and what one of them loses is measured again.
    """

    def __init__(self, machine: Mapping[str, str], folder: Path | None) -> None:
        self.machine = dict(machine)
        self._seconds: dict[str, float] | None = None
        digest = hashlib.sha256(json.dumps(self.machine, sort_keys=True).encode()).hexdigest()
        self.path = None if folder is None else folder / f"measured-{digest[:16]}.json"

    def get(self, name: str) -> float | None:
        """The seconds of that name, or None."""
        if self._seconds is None:
            self._seconds = self._read()
        return self._seconds.get(name)

    def put(self, seconds: Mapping[str, float]) -> bool:
        """Keep these, over what had their names; returns whether the file has them too."""
        mine = self._seconds or {}
        # Another process may have written since: its own stay.
        self._seconds = self._read() | mine | dict(seconds)
        if self.path is None:
            return False
        kept = {"machine": self.machine, "seconds": dict(sorted(self._seconds.items()))}
        with Suppressed(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(kept, indent=1).encode() + b"\n", lasting=False)
            return True
        return False

    def _read(self) -> dict[str, float]:
        if self.path is None:
            return {}
        try:
            text = self.path.read_bytes()
        except OSError as error:
            pass_on(error)
            return {}
        try:
            return _checked(json.loads(text))
        except (ValueError, RecursionError) as error:
            pass_on(error)
            if self._seconds is None:  # said once
                warnings.warn(
                    f"{self.path} is no file of times that were measured: it is not read, and "
                    "written anew with the next",
                    RuntimeWarning,
                    stacklevel=4,
                )
            return {}


def _checked(found: Any) -> dict[str, float]:
    seconds = found.get("seconds") if isinstance(found, dict) else None
    if not isinstance(seconds, dict):
        raise ValueError
    for value in seconds.values():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        if not (math.isfinite(value) and value > 0):
            raise ValueError
    return seconds
