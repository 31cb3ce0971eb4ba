"""Which problems `tests` and `sanitize` run, those first that say most."""

import itertools
from collections.abc import Iterator

from bench.gpu.compare import CELLS, TYPES, Case
from fastrnn_kernels.cuda.choice import PATHS

SMALL = ((3, 2, 3, 5), (1, 1, 1, 1), (2, 5, 4, 7))
#: Where a cluster shares R, and where all blocks do and tensor cores multiply.
CLUSTERED, LARGE = (7, 16, 256, 256), (5, 16, 512, 512)
REAL = (
    (5, 3, 63, 65), (20, 33, 40, 64), (10, 130, 64, 100), CLUSTERED, (5, 9, 512, 1000),
    (3, 40, 768, 768), (3, 300, 8, 33),
)  # fmt: skip


def variants(shape: tuple[int, int, int, int]) -> Iterator[Case]:
    """What a layer and a call may be beside the plain: each on every path, in float32."""
    for path in PATHS:
        yield Case("lstm", "float32", shape, path, ragged=True, resets=True, bidirectional=True)
        yield Case("gru", "float32", shape, path, resets=True)
        yield Case("rnn-relu", "float32", shape, path, bidirectional=True)
    steps = "stepwise"  # the one path for products that wait for others
    if shape[3] > 2:
        for ragged in (False, True):
            yield Case(
                "lstm", "float32", shape, steps, ragged=ragged, resets=ragged,
                bidirectional=ragged, proj_size=shape[3] // 2,
            )  # fmt: skip
    yield Case("gru-reset-before", "float32", shape, steps, ragged=True, resets=True)
    yield Case("gru-reset-before", "float64", shape, steps, bidirectional=True)
    for cell in ("lstm", "gru"):
        yield Case(cell, "float32", shape, "", stream=True)


def mechanisms() -> Iterator[Case]:
    """Each way in which blocks share R and meet, at sizes at which a GPU is divided so."""
    for path in PATHS:
        yield Case("lstm", "float32", CLUSTERED, path, ragged=True, resets=True, bidirectional=True)
        yield Case("gru", "float32", CLUSTERED, path)
    for dtype in ("tf32", "bfloat16", "float16", "float64"):
        yield Case("lstm", dtype, LARGE, "grid", ragged=True)
    yield Case("lstm", "float32", (3, 300, 8, 256), "block")  # more clusters than run at once


def tests(small: bool) -> Iterator[Case]:
    """All cells, types and paths at small, odd and (not `small`) real sizes.

    Each shape compiles kernels of its own: at real sizes the LSTM stands for all in types.
    """
    if not small:
        yield from mechanisms()
    yield from variants(SMALL[0])
    plain = [cell for cell in CELLS if cell != "gru-reset-before"]
    shapes = SMALL if small else SMALL + REAL
    for shape, cell, dtype, path in itertools.product(shapes, plain, TYPES, PATHS):
        if shape in SMALL or cell == "lstm" or dtype == "float32":
            yield Case(cell, dtype, shape, path, ragged=path == "stepwise" or shape[0] % 2 == 0)
    if not small:
        for shape in REAL[:3]:
            yield from variants(shape)


def sanitized() -> Iterator[Case]:
    """Few, as every access is checked: each kind of kernel once, rows that end, and resets."""
    shared = (3, 16, 4, 256)
    yield Case("lstm", "float32", shared, "block", ragged=True, resets=True)
    yield Case("lstm", "bfloat16", shared, "grid", ragged=True)
    shape = (3, 3, 4, 33)
    for path in PATHS:
        yield Case("lstm", "float32", shape, path, ragged=True, resets=True)
    yield Case("gru", "float32", shape, "grid", bidirectional=True)
    yield Case("gru-reset-before", "float32", shape, "stepwise", ragged=True)
    yield Case("lstm", "float32", shape, "stepwise", resets=True, proj_size=5)
    for dtype in ("float16", "tf32"):
        yield Case("lstm", dtype, (3, 8, 4, 64), "grid", ragged=True)
