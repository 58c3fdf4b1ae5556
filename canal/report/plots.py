"""Pictures. Every function takes arrays and writes one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#dcdcdc"


def demo_picture(
    out: Path,
    *,
    coordinates: np.ndarray,
    held_out: np.ndarray,
    given: np.ndarray,
    annotated: np.ndarray,
    stages: Sequence[str],
    accuracy: Mapping[str, list[list[float]]],
) -> None:
    """Draw given labels beside the annotation, and a table of accuracy for each method.

    Parameters
    ----------
    out
        PNG to write.
    coordinates
        Places of all cells, of shape (cells, 2).
    held_out
        Rows of the cells that were annotated; the others are grey.
    given, annotated
        Cell types of these, of shape (held-out cells,).
    stages
        Names of the stages.
    accuracy
        By method: row k holds the accuracy after stage k + 1 on each stage so far.
    """
    from matplotlib.figure import Figure

    colours = type_colours([*given.tolist(), *annotated.tolist()])
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(2.4, 1))
    wide, narrow = halves
    left, right = wide.subplots(1, 2)
    for axes, title, types in ((left, "given labels", given), (right, "canal", annotated)):
        axes.scatter(coordinates[:, 0], coordinates[:, 1], s=6, c=GREY, linewidths=0)
        _scatter(axes, coordinates[held_out], types, colours)
        axes.set_title(f"{title}, {len(held_out)} held-out cells")
    handles, names = _legend(left, colours)
    wide.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    for axes, (method, rows) in zip(np.ravel(narrow.subplots(len(accuracy), 1)), accuracy.items(), strict=True):
        draw_accuracy(axes, rows, stages, method)
    figure.savefig(out, dpi=120)


def draw_accuracy(axes: "Axes", rows: list[list[float]], stages: Sequence[str], title: str) -> None:
    """Draw a lower triangle of accuracies: after which stage, on which stage's held-out cells."""
    n = len(stages)
    table = np.full((n, n), np.nan)
    for k, row in enumerate(rows):
        table[k, : len(row)] = row
    axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for k, row in enumerate(rows):
        for i, value in enumerate(row):
            dark = value < 0.6
            axes.text(i, k, f"{value:.2f}", ha="center", va="center", color="w" if dark else "k")
    axes.set_xticks(range(n), stages, fontsize=8)
    axes.set_yticks(range(n), [f"after {k + 1}" for k in range(n)], fontsize=8)
    axes.set_title(f"accuracy, {title}", fontsize=10)


def type_colours(types: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each type, the same whatever the order they come in."""
    from matplotlib import colormaps

    names = sorted(set(types))
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    return {name: palette(k % palette.N) for k, name in enumerate(names)}


def _scatter(axes: "Axes", places: np.ndarray, types: np.ndarray, colours: Mapping[str, Any]) -> None:
    shown = [colours[name] for name in types.tolist()]
    axes.scatter(places[:, 0], places[:, 1], s=18, c=shown, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("UMAP 1")
    axes.set_ylabel("UMAP 2")


def _legend(axes: "Axes", colours: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    handles = [axes.scatter([], [], s=30, color=colour) for colour in colours.values()]
    return handles, list(colours)
