"""Every path beside cuDNN, through torch on the same GPU, and against the floor of its shape."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu import LIMIT
from bench.gpu.compare import CELLS
from bench.gpu.limits import ceilings, floor_s, median_s
from fastrnn import device
from fastrnn_kernels.cuda import choice
from fastrnn_kernels.cuda.launch.arrays import xp

#: H, B, T: where cuDNN's own figures are known, I = H; those first that matter most.
SHAPES = (
    (256, 16, 150), (512, 16, 25), (768, 16, 1024), (64, 1, 128), (128, 32, 128), (1024, 32, 128),
    (2048, 32, 25), (2048, 128, 25),
    *itertools.product((64, 128, 256, 512, 768, 1024), (1, 16, 32, 64, 128), (128,)),
)  # fmt: skip
KINDS = ("forward", "train")
GATES = {"lstm": 4, "gru": 3}


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let torch's products be in tf32, or not."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def cudnn(cell: str, shape: tuple[int, ...], tf32: bool) -> dict[str, float]:
    """cuDNN's times."""
    import torch

    T, B, I, H = shape
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](I, H).cuda()
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
    with stream, _tf32(tf32):
        return {"forward": median_s(forward), "train": median_s(train)}


def own(cell: str, shape: tuple[int, ...], path: str, tf32: bool) -> dict[str, float]:
    """fastrnn's, on a path, or on that of its choice; of inputs in turn."""
    T, B, I, H = shape
    layer = CELLS[cell](I, H, device="cuda", seed=0)
    random = np.random.default_rng(0)
    inputs = itertools.cycle(
        [xp.asarray(random.standard_normal((T, B, I)), "float32") for _ in range(3)]
    )
    dy = xp.ones((T, B, H), "float32")

    def train() -> None:
        _, _, tape = layer.forward(next(inputs))
        layer.backward(tape, dy)

    with choice.only(path), device.tf32(tf32):
        return {"forward": median_s(lambda: layer(next(inputs))), "train": median_s(train)}


def row(cell: str, shape: tuple[int, ...], found: dict[str, float], tf32: bool) -> dict[str, Any]:
    """A cell and shape: all paths, cuDNN, the ratios."""
    times: dict[str, Any] = {"cudnn": cudnn(cell, shape, tf32)}
    for path in ("", *choice.PATHS):
        try:
            times[path or "chosen"] = own(cell, shape, path, tf32)
        except choice.DoesNotFitError:
            continue
        except Exception as error:  # told, and the others go on
            times[path or "chosen"] = f"{type(error).__name__}: {error}"
    made: dict[str, Any] = {"cell": cell, "shape": shape, "tf32": tf32, **times}
    made["floor"] = {
        kind: floor_s(found, GATES[cell], shape, kind == "train", "block" in times)
        for kind in KINDS
    }
    if isinstance(times["chosen"], dict):
        for kind in KINDS:
            mine = times["chosen"][kind]
            made[f"{kind} cudnn / fastrnn"] = times["cudnn"][kind] / mine
            made[f"{kind} fastrnn / floor"] = mine / made["floor"][kind]
            made[f"{kind} us a step"] = mine / shape[0] * 1e6
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    head = f"{'':27}" + "".join(f"{kind:>36}" for kind in KINDS)
    names = f"{'cell tf32':>10}{'H':>6}{'B':>5}{'T':>6}" + 2 * (
        f"{'µs a step':>12}{'cudnn / own':>12}{'own / floor':>12}"
    )
    lines = [head, names]
    for one in rows:
        if "shape" not in one:
            continue
        T, B, _, H = one["shape"]
        cell = f"{one['cell']}{' tf32' if one['tf32'] else ''}"
        line = f"{cell:>10}{H:>6}{B:>5}{T:>6}"
        for kind in KINDS:
            for what in ("us a step", "cudnn / fastrnn", "fastrnn / floor"):
                value = one.get(f"{kind} {what}")
                line += f"{'failed' if value is None else format(value, '.2f'):>12}"
        lines.append(line)
    return "\n".join(lines)


def speed(out: Path) -> list[dict[str, Any]]:
    """All shapes within the time; tf32 is allowed to both sides, or to neither."""
    begun = time.monotonic()
    found = ceilings()
    print(found, flush=True)
    rows: list[dict[str, Any]] = [{"ceilings": found}]
    for (H, B, T), cell, tf32 in itertools.product(SHAPES, GATES, (False, True)):
        if time.monotonic() - begun > LIMIT:
            rows.append({"out of time before": (cell, H, B, T)})
            break
        rows.append(row(cell, (T, B, H, H), found, tf32))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        (out / "speed-so-far.json").write_text(json.dumps(rows, default=str))
    text = table(rows)
    (out / "speed.txt").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    return rows
