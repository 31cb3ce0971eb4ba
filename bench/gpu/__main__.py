"""`python -m bench.gpu`: runs a part, writes what it found, and tells whether all was good."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numba import config

import bench.gpu
import fastrnn
from bench.gpu import LIMIT, ROOT, cases
from bench.gpu.compare import Case, compare, compare_stream
from fastrnn_kernels.cuda import choice
from fastrnn_kernels.cuda.launch.arrays import xp


def tests(chosen: Iterable[Case]) -> list[dict[str, Any]]:
    """All of these cases, within the time."""
    rows: list[dict[str, Any]] = []
    begun = time.monotonic()
    for seed, case in enumerate(chosen):
        if time.monotonic() - begun > LIMIT:
            rows.append({"out of time": True, "left from": seed})
            print(rows[-1], flush=True)
            break
        rows.append(_tested(case, seed))
        print(rows[-1], flush=True)
    return rows


def _tested(case: Case, seed: int) -> dict[str, Any]:
    run: Callable[[Case, int], dict[str, Any]] = compare_stream if case.stream else compare
    try:
        return run(case, seed)
    except choice.DoesNotFitError as error:
        return {**case._asdict(), "good": True, "does not fit": str(error)}
    except Exception as error:  # told, and the others go on
        return {**case._asdict(), "good": False, "error": f"{type(error).__name__}: {error}"}


def sanitize(out: Path) -> list[dict[str, Any]]:
    """A few cases under compute-sanitizer, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return [{"good": True, "skipped": "compute-sanitizer is not installed"}]
    rows: list[dict[str, Any]] = []
    for what in ("memcheck", "racecheck"):
        part = ["-m", "bench.gpu", "--part", "tests", "--few", "--out", str(out / what)]
        command = [tool, "--tool", what, "--error-exitcode", "9", sys.executable, *part]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT / 2
            )
        except subprocess.TimeoutExpired as error:
            so_far = error.stdout or b""  # bytes, whatever was asked for
            tail = so_far[-2000:].decode(errors="replace") if isinstance(so_far, bytes) else so_far
            rows.append({"good": False, "tool": what, "error": "out of time", "tail": tail})
            continue
        tail = (done.stdout + done.stderr)[-4000:]
        rows.append({"good": done.returncode == 0, "tool": what, "tail": tail})
        print(what, done.returncode, flush=True)
    return rows


def machine() -> dict[str, Any]:
    """The GPU, its driver, and versions."""
    found = {device.name: device for device in fastrnn.devices()}
    versions = {"fastrnn": fastrnn.__version__, "numpy": np.__version__}
    if found["cuda"].available and not config.ENABLE_CUDASIM:
        versions |= {"cupy": xp.__version__, "driver": xp.cuda.runtime.driverGetVersion()}
    return {"gpu": found["cuda"].details, "reason": found["cuda"].reason, "versions": versions}


def main() -> int:
    """Run a part; 0 if all in it was good."""
    parser = argparse.ArgumentParser(description=(bench.gpu.__doc__ or "").split("\n")[0])
    parser.add_argument("--part", choices=("tests", "speed", "sanitize"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="small sizes alone")
    parser.add_argument("--few", action="store_true", help="those that `sanitize` runs")
    arguments = parser.parse_args()
    here = machine()
    if here["reason"]:
        parser.error(f"cuda cannot be used here: {here['reason']}")
    if arguments.part != "tests" and config.ENABLE_CUDASIM:
        parser.error("the simulator runs --part tests alone")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "tests":
        rows = tests(cases.sanitized() if arguments.few else cases.tests(arguments.small))
    elif arguments.part == "sanitize":
        rows = sanitize(arguments.out)
    else:
        from bench.gpu.speed import speed

        rows = speed(arguments.out)
    text = json.dumps({"machine": here, "rows": rows}, indent=1, default=str)
    (arguments.out / f"{arguments.part}.json").write_text(text)
    wrong = [row for row in rows if row.get("good") is False]
    print(f"{len(rows)} rows, {len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
