"""What the committed results say: the tables of docs/benchmarking.md, and three pictures.

    python bench/summary.py          prints the table, writes bench/results/*.png

It reads all of bench/results/*/*.json, files of `fastrnn bench --json`, a folder to a machine.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
CELLS = {"lstm": "#d1495b", "gru": "#2e6f95", "rnn": "#e3a72f"}
#: The machine whose ratios are pictured, and those whose suites `scaling` and `loop` are.
PICTURED, SCALED, LOOPED = "zen5", "zen4", "zen3"
#: Shares of a step, as the suite `loop` has them, and their colours.
SHARES = {
    "framework": "#c9c9c9", "adapter": "#8d99ae", "packing": "#e3a72f", "forward": "#2e6f95",
    "backward": "#d1495b", "weight gradients": "#7a3b69",
}  # fmt: skip
#: Lines of the table: a name, a file, a pass, and the least batch that counts.
LINES = (
    ("one step of a stream, from Python", "stream", "forward", 1),
    ("the same, weights in bfloat16", "stream-bfloat16", "forward", 1),
    ("the same, weights in int8", "stream-int8", "forward", 1),
    ("sequences, inference", "sequence", "forward", 1),
    ("the same in bfloat16, B ≥ 4", "sequence-bfloat16", "forward", 4),
    ("sequences, training", "train", "train", 1),
    ("ragged, inference", "ragged", "forward", 1),
    ("ragged, training", "ragged", "train", 1),
    ("DeepBench, inference", "deepbench", "forward", 1),
    ("DeepBench, training", "deepbench", "train", 1),
)


class Ratio(NamedTuple):
    """Best peer / fastrnn over the shapes of a suite."""

    mean: float  # geometric
    least: float
    most: float


def read() -> dict[str, dict[str, dict[str, Any]]]:
    """The committed results by machine and the names of their files."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for file in sorted(RESULTS.glob("*/*.json")):
        found[file.parent.name][file.stem] = json.loads(file.read_text(encoding="utf-8"))
    return found


def cases(rows: list[dict[str, Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    """The rows of each case, by contender; who failed has none."""
    found: dict[Any, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["error"] is None:
            case = tuple(row[name] for name in ("cell", "T", "B", "I", "H", "pass", "threads"))
            found[case][row["contender"]] = row
    yield from found.values()


def ratio(rows: list[dict[str, Any]], cell: str, pass_: str, least_batch: int) -> Ratio | None:
    """Above 1, fastrnn is faster than the fastest of its peers."""
    ratios = []
    for case in cases(rows):
        own = case.pop("fastrnn", None)
        case.pop("fastrnn.jit", None)
        if own is None or (own["cell"], own["pass"]) != (cell, pass_) or own["B"] < least_batch:
            continue
        if case:
            ratios.append(min(row["median_s"] for row in case.values()) / own["median_s"])
    if not ratios:
        return None
    return Ratio(float(np.exp(np.mean(np.log(ratios)))), min(ratios), max(ratios))


def table(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Ratio]]:
    """The lines of the table for which there are results."""
    lines: dict[str, dict[str, Ratio]] = {}
    for name, file, pass_, least_batch in LINES:
        for cell in CELLS:
            found = ratio(results.get(file, {"rows": []})["rows"], cell, pass_, least_batch)
            if found is not None:
                lines.setdefault(name, {})[cell] = found
    return lines


def caption(machine: dict[str, Any]) -> str:
    """Where it was measured."""
    found, threads = machine["versions"], machine["threads"]
    peers = ("torch", "keras") if threads is None else ("torch", "onnxruntime", "openvino", "numpy")
    versions = ", ".join(f"{name} {found[name]}" for name in peers if name in found)
    how = (
        f"{machine['cores']} cores, default environment"
        if threads is None
        else f"{threads} threads each"
    )
    return f"{machine['cpu']}, {how} · {versions}"


def _finish(figure: Any, machine: dict[str, Any], name: str) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.01, caption(machine), fontsize=7)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(RESULTS / f"{name}.png", dpi=130)


def draw_ratio(lines: dict[str, dict[str, Ratio]], machine: dict[str, Any]) -> None:
    """A bar to a suite and cell, from the least ratio of a shape to the largest."""
    figure, axis = plt.subplots(figsize=(9, 4))
    for k, (cell, colour) in enumerate(CELLS.items()):
        at = [n + 0.26 * (k - 1) for n, line in enumerate(lines.values()) if cell in line]
        found = [line[cell] for line in lines.values() if cell in line]
        spread = [[r.mean - r.least for r in found], [r.most - r.mean for r in found]]
        axis.bar(
            at, [r.mean - 1 for r in found], 0.24, bottom=1, color=colour, label=cell.upper(),
            yerr=spread, ecolor="#00000070", error_kw={"linewidth": 0.9},
        )  # fmt: skip
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_yscale("log")
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.set_xticks(range(len(lines)), [name.replace(", ", ",\n") for name in lines], fontsize=7.5)
    axis.set_ylabel("time of the fastest peer / fastrnn")
    axis.set_title(
        "Above 1, fastrnn is faster: mean over the shapes of a suite, least and most",
        loc="left", fontsize=10,
    )  # fmt: skip
    axis.legend(frameon=False, ncols=3, fontsize=8)
    _finish(figure, machine, "ratio")


def draw_limit(scaling: dict[str, Any]) -> None:
    """Percent of the machine's limit by batch size: fastrnn, and the fastest of its peers."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    titles = {"forward": "forward (inference)", "train": "forward and backward"}
    everything = list(cases(scaling["rows"]))
    shapes = [(c["fastrnn"]["T"], c["fastrnn"]["I"], c["fastrnn"]["H"]) for c in everything]
    T, I, H = max(set(shapes), key=shapes.count)  # the axis of B has the most shapes
    for axis, (pass_, title) in zip(axes, titles.items(), strict=True):
        for cell, colour in CELLS.items():
            points = sorted(
                (
                    case["fastrnn"]["B"],
                    case["fastrnn"]["of_roof"],
                    max(row["of_roof"] for name, row in case.items() if name != "fastrnn"),
                )
                for case, shape in zip(everything, shapes, strict=True)
                if shape == (T, I, H)
                and (case["fastrnn"]["cell"], case["fastrnn"]["pass"]) == (cell, pass_)
            )
            batches, own, best = zip(*points, strict=True)
            axis.plot(batches, [100 * p for p in own], "o-", color=colour, label=cell.upper())
            axis.plot(batches, [100 * p for p in best], "x:", color=colour, linewidth=1)
        axis.set_xscale("log", base=2)
        axis.set_xlabel(f"batch size B (T={T}, I={I}, H={H})")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(0, 100)
    axes[0].set_ylabel("% of the machine's limit")
    axes[0].legend(frameon=False, fontsize=8, title="dotted: best peer", title_fontsize=8)
    _finish(figure, scaling["machine"], "limit")


def models(loop: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each model fastrnn's row and that of the framework's own layers."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in loop["rows"]:
        found[row["model"]][row["contender"]] = row
    return [(rows.pop("fastrnn"), *rows.values()) for rows in found.values()]


def draw_loop(loop: dict[str, Any]) -> None:
    """Two bars to a model: a step with its own layers, and with fastrnn's by where it goes."""
    figure, axis = plt.subplots(figsize=(9, 4.6))
    found = models(loop)
    for n, (own, other) in enumerate(found):
        whole = own["median_s"] / other["median_s"]
        axis.barh(n - 0.2, 1, 0.36, color="#505050")
        left = 0.0
        for share, colour in SHARES.items():
            width = whole * own["shares"][share]
            axis.barh(
                n + 0.2, width, 0.36, left=left, color=colour, label=share if n == 0 else None
            )
            left += width
        text = f"{1 / whole:.2f} times as fast"
        axis.text(left + 0.01, n + 0.2, text, va="center", fontsize=7.5)
        text = f"{other['median_s'] * 1e3:.3g} ms"
        axis.text(0.99, n - 0.2, text, va="center", ha="right", fontsize=7, color="white")
    titles = [f"{own['framework']}: {own['model']}\n{own['about']}" for own, _ in found]
    axis.set_yticks(range(len(found)), titles, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2)
    axis.set_xlabel("time of a step over that with the framework's own layers (dark)")
    axis.legend(frameon=False, ncols=6, fontsize=7.5, loc="lower left", bbox_to_anchor=(-0.4, 1.0))
    _finish(figure, loop["machine"], "loop")


def loop_lines(loop: dict[str, Any], one_thread: dict[str, Any]) -> Iterator[str]:
    """Lines of the table of models."""
    for (own, other), (alone, others) in zip(models(loop), models(one_thread), strict=True):
        what = "training" if own["training"] else "inference"
        yield (
            f"| {own['framework']}, {own['model']}: {own['about']}, {what} "
            f"| {other['median_s'] * 1e3:.3g} ms | {own['median_s'] * 1e3:.3g} ms "
            f"| {other['median_s'] / own['median_s']:.2f} "
            f"| {others['median_s'] / alone['median_s']:.2f} |"
        )


def steps(stream: dict[str, Any]) -> Iterator[str]:
    """Lines of the table of single steps: in compiled code, from Python, and how they spread."""
    for case in cases(stream["rows"]):
        own, compiled = case.pop("fastrnn"), case.pop("fastrnn.jit", None)
        if compiled is None:
            continue
        best = min(row["median_s"] for row in case.values())
        spread = [own["single_s"][part] * 1e6 for part in ("p50", "p99", "p99.9", "worst")]
        yield (
            f"| {own['cell'].upper()} {own['I']}, {own['H']} | {compiled['median_s'] * 1e9:.0f} ns "
            f"| {own['median_s'] * 1e6:.2f} µs | {' / '.join(f'{us:.3g}' for us in spread)} "
            f"| {best * 1e6:.1f} µs | {best / own['median_s']:.2f} |"
        )


def cell_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table of cells: own times, and how many times as long the others take."""
    for case in cases(rows):
        own = case.pop("fastrnn", None)
        case.pop("fastrnn.jit", None)
        if own is None:
            continue
        others = ", ".join(
            f"{name} {row['median_s'] / own['median_s']:.2f}"
            + (f" (compiled in {row['compile_s']:.0f} s)" if name == "torch.compile" else "")
            for name, row in case.items()
        )
        shape = ", ".join(f"{name}={own[name]}" for name in "TBIH")
        yield (
            f"| {own['cell'].rpartition(':')[2]} | {shape}, {own['pass']} "
            f"| {own['median_s'] * 1e3:.3g} ms | {others} |"
        )


def _shown(line: dict[str, Ratio] | None) -> str:
    """The means of the cells and, in brackets, the least."""
    if line is None:
        return "–"
    means = " / ".join(f"{line[cell].mean:.2f}" for cell in CELLS)
    return f"{means} ({' / '.join(f'{line[cell].least:.2f}' for cell in CELLS)})"


def main() -> None:
    """Print the tables and draw the pictures."""
    results = read()
    lines = {machine: table(found) for machine, found in results.items()}
    print(f"| LSTM / GRU / RNN | {' | '.join(results)} |")
    for name, *_ in LINES:
        print(f"| {name} | {' | '.join(_shown(found.get(name)) for found in lines.values())} |")
    for machine, found in results.items():
        if "stream" in found:
            print(f"\n{machine}: a step of a stream")
            print(*steps(found["stream"]), sep="\n")
        if "cells" in found:
            print(f"\n{machine}: cells by their equations")
            print(*cell_lines(found["cells"]["rows"]), sep="\n")
        if "loop" in found:
            print(f"\n{machine}: steps of models")
            print(*loop_lines(found["loop"], found["loop-one-thread"]), sep="\n")
    pictured = results[PICTURED]
    shown_in_picture = {
        name: line for name, line in lines[PICTURED].items() if not name.startswith("the same, w")
    }
    draw_ratio(shown_in_picture, pictured["sequence"]["machine"])
    draw_limit(results[SCALED]["scaling"])
    draw_loop(results[LOOPED]["loop"])


if __name__ == "__main__":
    main()
