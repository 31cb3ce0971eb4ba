"""Draw a picture of a result of `fastrnn bench --json`.

python bench/plot.py bench/results/quick.json      writes bench/results/quick.png
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"fastrnn": "#d1495b", "torch": "#6b7a8f", "onnxruntime": "#a3b1c2", "numpy": "#d9dfe6"}
PASSES = {"forward": "forward (inference)", "train": "forward and backward"}


def draw(results: dict[str, Any], target: Path) -> None:
    """One panel for each pass: GFLOP/s of every contender, by cell and shape."""
    rows = [row for row in results["rows"] if row["error"] is None]
    passes = [name for name in PASSES if any(row["pass"] == name for row in rows)]
    figure, axes = plt.subplots(len(passes), 1, figsize=(9, 3.2 * len(passes)), squeeze=False)
    for axis, name in zip(axes[:, 0], passes, strict=True):
        cases: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["pass"] == name:
                shape = "T{T} B{B}\nI{I} H{H}".format_map(row)
                case = cases.setdefault(f"{row['cell'].upper()}\n{shape}", {})
                case[row["contender"]] = row["gflops"]
        contenders = [c for c in COLOURS if any(c in case for case in cases.values())]
        width = 0.8 / len(contenders)
        for k, contender in enumerate(contenders):
            places = [
                n - 0.4 + width * (k + 0.5) for n, c in enumerate(cases.values()) if contender in c
            ]
            heights = [case[contender] for case in cases.values() if contender in case]
            axis.bar(places, heights, width, color=COLOURS[contender], label=contender)
        peak = results["machine"]["probes"]["fma"] / 1e9
        axis.axhline(peak, color="black", linewidth=0.8, linestyle=":")
        axis.text(len(cases) - 0.5, peak, "measured peak ", ha="right", va="bottom", fontsize=8)
        axis.set_xticks(range(len(cases)), list(cases), fontsize=7.5)
        axis.set_ylabel("GFLOP/s")
        axis.set_ylim(0, peak * 1.12)
        axis.set_title(PASSES[name], loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, ncols=4, fontsize=8, loc="upper left")
    machine = results["machine"]
    versions = ", ".join(
        f"{peer} {machine['versions'][peer]}" for peer in COLOURS if peer in machine["versions"]
    )
    figure.text(
        0.01, 0.005,
        f"{machine['cpu']}, {machine['threads']} threads each, "
        f"{results['rows'][0]['dtype']} · {versions}",
        fontsize=7,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(target, dpi=130)


def main() -> None:
    """Draw every file named on the command line, each beside itself."""
    for name in sys.argv[1:]:
        source = Path(name)
        draw(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".png"))


if __name__ == "__main__":
    main()
