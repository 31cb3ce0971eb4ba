"""fastrnn's CUDA kernels on a GPU: are they right, are they clean, how fast are they?

    python -m bench.gpu --part tests --out DIR        values and gradients on every path
    python -m bench.gpu --part sanitize --out DIR     the same under compute-sanitizer
    python -m bench.gpu --part speed --out DIR        times beside cuDNN (through torch)

Each part ends within eight minutes and writes DIR/<part>.json. It takes numba, numba-cuda, CuPy,
NumPy and, for speed, torch; nothing has to be installed of fastrnn itself. With
NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 and --small, `tests` rehearses on Numba's simulator.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

import numpy as np  # noqa: E402
from numba import config  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.bench import reference  # noqa: E402
from fastrnn_kernels.cuda import choice, division  # noqa: E402
from fastrnn_kernels.cuda.arrays import xp  # noqa: E402

PATHS = ("stepwise", "block", "grid")
CELLS = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}
#: Largest error of an array over its largest value, as `fastrnn bench` has it.
TOLERANCE = {"float32": 5e-5, "float64": 1e-10}
#: Seconds after which a part begins nothing new.
LIMIT = 420
#: H, B, T: where cuDNN's own figures are known, I = H.
SHAPES = (
    *itertools.product((64, 128, 256, 512, 768, 1024), (1, 16, 32, 64, 128), (128,)),
    (2048, 32, 25), (2048, 128, 25), (768, 16, 1024), (256, 16, 150), (512, 16, 25),
)  # fmt: skip
#: Bytes that are written between two timed calls, so that none finds its data in the cache.
FLUSH = 256 << 20


class DoesNotFitError(Exception):
    """A path does not take a shape on this GPU."""


@contextmanager
def on_path(path: str | None) -> Iterator[None]:
    """Have all passes take one path; None for the one that fastrnn chooses."""
    ways = {"block": division.one_block, "grid": division.all_blocks}

    def division_of(weights: Any, B: int, backward: bool) -> Any:
        if path == "stepwise":
            return None
        size = weights.hidden_size, B, weights.dtype.itemsize
        found = ways[str(path)](weights.cell, *size, choice.gpu(), backward)
        if found is None:
            raise DoesNotFitError(f"H={size[0]}, B={B} does not fit path {path}")
        return found

    if path is None:
        yield
        return
    with mock.patch.object(choice, "division_of", division_of):
        yield


def _error(found: Any, wanted: Any) -> float:
    scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
    return float(np.max(np.abs(found - wanted), initial=0.0)) / scale


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is to be written holds NaN until it is."""
    plain = xp.empty

    def empty(*args: Any, **kwargs: Any) -> Any:
        array = plain(*args, **kwargs)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    with mock.patch.object(xp, "empty", empty):
        yield


def compare(
    cell: str, dtype: str, shape: tuple[int, ...], path: str, seed: int, ragged: bool
) -> dict[str, Any]:
    """One random problem on a path against float64 on the CPU, twice for the same bits."""
    T, B, I, H = shape
    random = np.random.default_rng(seed)
    layer = CELLS[cell](I, H, device="cuda", dtype=dtype, seed=seed)
    lengths = random.integers(0, T + 1, B) if ragged else None
    normal = random.standard_normal
    x, dy = normal((T, B, I)), normal((T, B, H))
    states = [normal((B, H)) for _ in range(2 if cell == "lstm" else 1)]
    d_states = [normal((B, H)) for _ in states]
    weights = {n.removesuffix("_l0"): v.astype(float) for n, v in layer.state_dict().items()}
    y, final, tape = reference.forward(cell, weights, x, tuple(states), lengths)
    dx, d_start, gradients = reference.backward(cell, weights, tape, dy, tuple(d_states))

    def given(arrays: list[Any]) -> Any:
        parts = tuple(array.astype(dtype)[None] for array in arrays)
        return parts if cell == "lstm" else parts[0]

    def parts(state: Any) -> list[Any]:
        return [part[0] for part in (state if isinstance(state, tuple) else (state,))]

    def found() -> dict[str, Any]:
        out, end, kept = layer.forward(x.astype(dtype), given(states), lengths)
        back = layer.backward(kept, dy.astype(dtype), given(d_states))
        named = {"y": out, "dx": back.x}
        named |= {f"final {k}": part for k, part in enumerate(parts(end))}
        named |= {f"start {k}": part for k, part in enumerate(parts(back.state))}
        return named | {n.removesuffix("_l0"): v for n, v in back.parameters.items()}

    wanted = {"y": y, "dx": dx, **gradients}
    wanted |= {f"final {k}": part for k, part in enumerate(final)}
    wanted |= {f"start {k}": part for k, part in enumerate(d_start)}
    with on_path(path), poisoned():
        first, second = found(), found()
    errors = {name: _error(first[name], array) for name, array in wanted.items()}
    same = all(np.array_equal(first[name], second[name]) for name in wanted)
    worst = max(errors, key=lambda name: errors[name] if errors[name] >= 0 else np.inf)
    good = same and all(error <= TOLERANCE[dtype] for error in errors.values())
    case = {"cell": cell, "dtype": dtype, "shape": shape, "path": path, "ragged": ragged}
    return {**case, "good": good, "same_bits": same, "worst": worst, "error": errors[worst]}


def tests(small: bool) -> list[dict[str, Any]]:
    """All paths, cells and types at small, odd and (not `small`) real sizes."""
    shapes: tuple[tuple[int, ...], ...] = ((3, 2, 3, 5), (1, 1, 1, 1), (2, 5, 4, 7))
    if not small:
        shapes += ((5, 3, 63, 65), (20, 33, 40, 64), (10, 130, 64, 100), (7, 16, 256, 256))
        shapes += ((5, 9, 512, 1000), (3, 40, 768, 768), (3, 300, 8, 33))
    rows = []
    begun = time.monotonic()
    cases = itertools.product(shapes, CELLS, TOLERANCE, PATHS, (False, True))
    for seed, (shape, cell, dtype, path, ragged) in enumerate(cases):
        if time.monotonic() - begun > LIMIT:
            rows.append({"good": False, "error": "out of time", "left from": seed})
            break
        try:
            rows.append(compare(cell, dtype, shape, path, seed, ragged))
        except DoesNotFitError as error:
            rows.append({"good": True, "does not fit": str(error)})
        except Exception as error:  # told, and the others go on
            case = {"cell": cell, "dtype": dtype, "shape": shape, "path": path}
            rows.append({**case, "good": False, "error": f"{type(error).__name__}: {error}"})
        print(rows[-1], flush=True)
    return rows


def sanitize(out: Path) -> list[dict[str, Any]]:
    """The small tests under compute-sanitizer, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return [{"good": True, "skipped": "compute-sanitizer is not installed"}]
    rows = []
    for what in ("memcheck", "racecheck"):
        part = ["-m", "bench.gpu", "--part", "tests", "--small", "--out", str(out / what)]
        command = [tool, "--tool", what, "--error-exitcode", "9", sys.executable, *part]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT / 2
            )
        except subprocess.TimeoutExpired:
            rows.append({"good": False, "tool": what, "error": "out of time"})
            continue
        rows.append({"good": done.returncode == 0, "tool": what, "tail": done.stdout[-2000:]})
        print(what, done.returncode, flush=True)
    return rows


def _median_s(call: Callable[[], Any], seconds: float = 0.3) -> float:
    """Median device time of a call, between events, the cache flushed before each."""
    flush = xp.empty(FLUSH // 4, "float32")
    for _ in range(3):
        call()
    taken: list[float] = []
    end = time.monotonic() + seconds
    while len(taken) < 10 or (time.monotonic() < end and len(taken) < 200):
        flush.fill(len(taken))
        start, stop = xp.cuda.Event(), xp.cuda.Event()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        taken.append(xp.cuda.get_elapsed_time(start, stop) / 1e3)
    return float(np.median(taken))


def ceilings() -> dict[str, float]:
    """What this GPU reaches: copies, products, a launch."""
    a, b = (xp.ones(1 << 28, "float32") for _ in range(2))
    m = xp.ones((8192, 8192), "float32")
    out = xp.empty_like(m)
    tiny = xp.zeros(1, "float32")

    def copy() -> None:
        a[...] = b

    def launches() -> None:
        for _ in range(100):
            tiny.fill(0)

    return {
        "copy_bytes_per_s": 2 * a.nbytes / _median_s(copy),
        "float32_flops": 2 * 8192**3 / _median_s(lambda: xp.matmul(m, m, out=out)),
        "launch_s": _median_s(launches) / 100,
    }


def _torch_times(cell: str, shape: tuple[int, ...]) -> dict[str, float]:
    """cuDNN's times through torch, float32 without tf32."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    T, B, I, H = shape
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    layer = kind(I, H).cuda()
    x = torch.randn(T, B, I, device="cuda", requires_grad=True)
    dy = torch.randn(T, B, H, device="cuda")

    def forward() -> None:
        with torch.inference_mode():
            layer(x.detach())

    def train() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x)[0].backward(dy)

    stream = xp.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
    with stream:
        return {"forward": _median_s(forward), "train": _median_s(train)}


def _own_times(cell: str, shape: tuple[int, ...], path: str | None) -> dict[str, float]:
    T, B, I, H = shape
    layer = CELLS[cell](I, H, device="cuda", seed=0)
    x = xp.asarray(np.random.default_rng(0).standard_normal((T, B, I)), "float32")
    dy = xp.ones((T, B, H), "float32")

    def train() -> None:
        _, _, tape = layer.forward(x)
        layer.backward(tape, dy)

    with on_path(path):
        return {"forward": _median_s(lambda: layer(x)), "train": _median_s(train)}


def speed(out: Path) -> list[dict[str, Any]]:
    """Every path beside cuDNN, and fastrnn's own choice."""
    found: dict[str, Any] = {"ceilings": ceilings()}
    print(found, flush=True)
    rows = [found]
    begun = time.monotonic()
    for (H, B, T), cell in itertools.product(SHAPES, ("lstm", "gru")):
        if time.monotonic() - begun > LIMIT:
            rows.append({"out of time before": (cell, H, B, T)})
            break
        shape = (T, B, H, H)
        row: dict[str, Any] = {"cell": cell, "shape": shape, "cudnn": _torch_times(cell, shape)}
        for path in (None, *PATHS):
            try:
                row[path or "chosen"] = _own_times(cell, shape, path)
            except DoesNotFitError:
                continue
            except Exception as error:  # told, and the others go on
                row[path or "chosen"] = f"{type(error).__name__}: {error}"
        rows.append(row)
        print(row, flush=True)
        (out / "speed-so-far.json").write_text(json.dumps(rows, default=str))
    return rows


def machine() -> dict[str, Any]:
    """The GPU, its driver, and versions."""
    found = {name: device for device in fastrnn.devices() for name in [device.name]}
    versions = {"fastrnn": fastrnn.__version__, "numpy": np.__version__}
    if not config.ENABLE_CUDASIM:
        versions |= {"cupy": xp.__version__, "driver": xp.cuda.runtime.driverGetVersion()}
    return {"gpu": found["cuda"].details, "reason": found["cuda"].reason, "versions": versions}


def main() -> int:
    """Run a part; 0 if all in it was good."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=("tests", "speed", "sanitize"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="small sizes alone")
    arguments = parser.parse_args()
    here = machine()
    if here["reason"]:
        parser.error(f"cuda cannot be used here: {here['reason']}")
    if arguments.part != "tests" and config.ENABLE_CUDASIM:
        parser.error("the simulator runs --part tests alone")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "tests":
        rows = tests(arguments.small)
    else:
        rows = {"speed": speed, "sanitize": sanitize}[arguments.part](arguments.out)
    text = json.dumps({"machine": here, "rows": rows}, indent=1, default=str)
    (arguments.out / f"{arguments.part}.json").write_text(text)
    wrong = [row for row in rows if row.get("good") is False]
    print(f"{len(rows)} rows, {len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
