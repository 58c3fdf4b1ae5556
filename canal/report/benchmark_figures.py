"""The picture of a benchmark: methods beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canal.report.heat_map import draw_heat_map

MARKS = {"accuracy": ("o", "#1f4e79"), "macro_f1": ("D", "#c55a11")}
JOINT = "#9a9a9a"


def benchmark_picture(
    out: Path,
    *,
    names: Sequence[str],
    means: Mapping[str, np.ndarray],
    spreads: Mapping[str, np.ndarray],
    on_stage: np.ndarray,
    stages: Sequence[str],
    title: str,
) -> None:
    """Draw accuracy and macro-F1, forgetting, and the accuracy on each stage's test at the end.

    Parameters
    ----------
    out
        PNG to write.
    names
        Of the methods, from the top; one that ends in an asterisk sees all cells and is grey.
    means, spreads
        ``accuracy``, ``macro_f1`` and ``forgetting`` with their standard deviations, each (methods,).
    on_stage
        Accuracy after the last stage, (methods, stages).
    stages
        Names of the stages.
    title
        Of the picture.
    """
    from matplotlib.figure import Figure

    n = len(names)
    figure = Figure(figsize=(5 + 3.2 * 2 + 0.9 * len(stages), 1.8 + 0.32 * n), layout="constrained")
    parts: Any = figure.subplots(1, 3, width_ratios=(2.2, 1.2, max(1.0, 0.45 * len(stages))))
    figures, lost, heat = parts
    places = np.arange(n)
    for key, (mark, colour) in MARKS.items():
        shade = [JOINT if name.endswith("*") else colour for name in names]
        label = key.replace("macro_f1", "macro-F1")
        figures.errorbar(means[key], places, xerr=spreads[key], fmt="none", ecolor=shade, elinewidth=1)
        figures.scatter(means[key], places, marker=mark, c=shade, s=26, label=label, zorder=3)
    figures.legend(frameon=False, fontsize=8, loc="lower left")
    shade = [JOINT if name.endswith("*") else "#3b3b3b" for name in names]
    lost.barh(places, means["forgetting"], xerr=spreads["forgetting"], color=shade, height=0.6, error_kw={"lw": 0.8})
    lost.axvline(0, color="k", lw=0.6)
    for axes, text in ((figures, "after the last stage, mean over tests"), (lost, "forgetting")):
        axes.set_ylim(n - 0.5, -0.5)
        axes.set_title(text, fontsize=9)
        axes.grid(axis="x", lw=0.3)
    figures.set_yticks(places, names, fontsize=8)
    lost.set_yticks(places, [""] * n)
    lowest = float(np.nanmin(on_stage))
    draw_heat_map(heat, on_stage, [""] * n, stages, low=min(lowest, 0.9), high=1.0)
    heat.set_title("accuracy on each test", fontsize=9)
    figure.suptitle(f"{title}   (* sees the cells of all stages)", fontsize=10)
    figure.savefig(out, dpi=120)
