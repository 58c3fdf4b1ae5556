"""The pictures of novel cells. Every function takes arrays and returns a PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.report.plots import GREY, type_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASIDE_COLOUR = "#8a8f98"
LARGEST = 130.0  # area of a dot in points


def umap_picture(coordinates: np.ndarray, groups: np.ndarray, clusters: Sequence[str], known: np.ndarray) -> bytes:
    """Draw novel clusters in colour over the known cells in grey.

    Parameters
    ----------
    coordinates
        Places of the cells, (cells, 2).
    groups
        Cluster of each cell, or the known type, (cells,).
    clusters
        Names of the clusters to colour; novel cells of no other are drawn dark grey.
    known
        Whether a cell is a known one, (cells,).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(coordinates[known][:, 0], coordinates[known][:, 1], s=7, color=GREY, linewidths=0)
    aside = ~known & ~np.isin(groups.astype(str), list(clusters))
    axes.scatter(
        coordinates[aside][:, 0],
        coordinates[aside][:, 1],
        s=12,
        color=ASIDE_COLOUR,
        linewidths=0,
        label="in no cluster",
    )
    colours = type_colours(list(clusters))
    for name in clusters:
        rows = ~known & (groups == name)
        axes.scatter(
            coordinates[rows][:, 0],
            coordinates[rows][:, 1],
            s=14,
            color=colours[name],
            linewidths=0,
            label=f"cluster {name}",
        )
    for name in sorted(set(groups[known].tolist())):
        _write(axes, coordinates[known & (groups == name)], name, "#5b6472")
    for name in clusters:
        _write(axes, coordinates[~known & (groups == name)], name, "#1d2430", weight="bold", size=12)
    axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    return _as_png(figure)


def dot_plot(
    genes: Sequence[str], rows: Sequence[str], share: np.ndarray, mean: np.ndarray, of_row: Mapping[str, str]
) -> bytes:
    """Draw genes of clusters and known types: size is the share of cells that have any, colour the mean.

    Parameters
    ----------
    genes
        Names of the columns.
    rows
        Names of clusters and types.
    share, mean
        Of each row and gene, (rows, genes); the mean is of the logarithm, scaled to 1 in each gene here.
    of_row
        Text to show for a row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 + 0.3 * max(len(genes), 8), 1.9 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(rows)))
    top = np.maximum(mean.max(axis=0, initial=0.0), 1e-9)
    shown = axes.scatter(x.ravel(), y.ravel(), s=share.ravel() * LARGEST, c=(mean / top).ravel(), cmap="Reds",
                         vmin=0, vmax=1, edgecolors="#b9bec7", linewidths=0.4)  # fmt: skip
    axes.set_xticks(range(len(genes)), genes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [of_row[name] for name in rows], fontsize=8)
    axes.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(rows) - 0.4, -0.6))
    for size in (0.25, 0.5, 1.0):
        axes.scatter([], [], s=size * LARGEST, color="#8a8f98", label=f"{size:.0%} of cells")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=7.5)
    figure.colorbar(shown, ax=axes, shrink=0.7, label="mean, scaled in each gene")
    return _as_png(figure)


def _write(axes: Any, places: np.ndarray, name: str, colour: str, weight: str = "normal", size: float = 8) -> None:
    x, y = np.median(places, axis=0)
    axes.text(x, y, name, ha="center", va="center", color=colour, weight=weight, fontsize=size, parse_math=False,
              bbox={"boxstyle": "round,pad=0.15", "facecolor": "w", "alpha": 0.6, "linewidth": 0})  # fmt: skip


def _as_png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
