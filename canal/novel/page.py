"""The page of `canal novel find`, from the template `page.html.jinja`, and its pictures: a map and a dot plot."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.novel.report import NovelReport
from canal.report.plots import GREY, render_page, type_colours
from canal.text import picture_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def novel_page(report: NovelReport, umap: bytes | None, dots: bytes | None) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    report
        What was found.
    umap, dots
        PNG of the map and of the dot plot, or ``None`` where there is none.
    """
    # The name of the file alone, also of a path that was written on Windows.
    file_name = report.data.replace("\\", "/").rsplit("/", 1)[-1]
    return render_page(
        "novel/page.html.jinja", title=f"Novel cells of {file_name}", report=report, umap=umap, dots=dots
    )


IN_NO_CLUSTER = "#8a8f98"  # darker than the known cells in the background
TYPE_NAME, CLUSTER_NAME = "#5b6472", "#1d2430"


def umap_picture(coordinates: np.ndarray, groups: np.ndarray, clusters: Sequence[str], known: np.ndarray) -> bytes:
    """Draw novel clusters in colour over the known cells in grey.

    Parameters
    ----------
    coordinates
        UMAP coordinates of the cells, (cells, 2).
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
    # Known cells, then novel ones in no cluster, then the clusters: what matters most is drawn last.
    axes.scatter(coordinates[known][:, 0], coordinates[known][:, 1], s=7, color=GREY, linewidths=0)
    aside = ~known & ~np.isin(groups.astype(str), list(clusters))
    _scatter(axes, coordinates[aside], 12, IN_NO_CLUSTER, "in no cluster")
    colours = type_colours(list(clusters))
    for name in clusters:
        _scatter(axes, coordinates[~known & (groups == name)], 14, colours[name], f"cluster {name}")
    # Names stand in the middle of their cells.
    for name in sorted(set(groups[known].tolist())):
        _write_name(axes, coordinates[known & (groups == name)], name, TYPE_NAME)
    for name in clusters:
        _write_name(axes, coordinates[~known & (groups == name)], name, CLUSTER_NAME, weight="bold", size=12)
    axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    return _as_png(figure)


def _scatter(axes: "Axes", coordinates: np.ndarray, size: float, colour: Any, label: str) -> None:
    axes.scatter(coordinates[:, 0], coordinates[:, 1], s=size, color=colour, linewidths=0, label=picture_text(label))


def _write_name(
    axes: "Axes", coordinates: np.ndarray, name: str, colour: str, weight: str = "normal", size: float = 8
) -> None:
    x, y = np.median(coordinates, axis=0)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "w", "alpha": 0.6, "linewidth": 0}
    # A name is no formula, whatever it holds.
    axes.text(
        x, y, name, ha="center", va="center", color=colour, weight=weight, fontsize=size, parse_math=False, bbox=box
    )


LONGEST_NAME = 28  # letters of a gene or type in a picture; the tables have it whole


def shortened(name: str) -> str:
    """Return a name as a picture has room for it: a long one without its middle."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


LARGEST_DOT = 130.0  # area in square points, where all cells have some of the gene
LEGEND_DOT = "#8a8f98"


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

    columns, titles = [shortened(gene) for gene in genes], [shortened(of_row[name]) for name in rows]
    # Room for the names: a letter of this size is about .08 inches wide.
    below, beside = 0.08 * max(map(len, columns), default=0), 0.08 * max(map(len, titles), default=0)
    width, height = 1.2 + beside + 0.3 * max(len(genes), 8), 1.2 + below + 0.27 * len(rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    # A dot for each gene and row.
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(rows)))
    top = np.maximum(mean.max(axis=0, initial=0.0), 1e-9)
    dots = axes.scatter(
        x.ravel(),
        y.ravel(),
        s=share.ravel() * LARGEST_DOT,
        c=(mean / top).ravel(),
        cmap="Reds",
        vmin=0,
        vmax=1,
        edgecolors="#b9bec7",
        linewidths=0.4,
    )
    axes.set_xticks(range(len(genes)), columns, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(rows)), titles, fontsize=8, parse_math=False)
    axes.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(rows) - 0.4, -0.6))
    # What sizes and colours mean.
    for size in (0.25, 0.5, 1.0):
        axes.scatter([], [], s=size * LARGEST_DOT, color=LEGEND_DOT, label=f"{size:.0%} of cells")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=7.5)
    figure.colorbar(dots, ax=axes, shrink=0.7, label="mean, scaled in each gene")
    return _as_png(figure)


def _as_png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
