"""The pictures of novel cells. Every function takes arrays and returns a PNG.

The page of `canal novel find`: one file with everything in it, nothing fetched from anywhere.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.novel.report import MarkerGene, NearType, NovelCluster, NovelReport
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


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem }
h3 { font-size: .95rem; margin: 0 0 .2rem }
p.note, figcaption { color: #5b6472; font-size: .87rem; margin: .3rem 0 .8rem } figure { margin: 1rem 0 }
table { border-collapse: collapse; font-size: .87rem; width: 100% } th { text-align: left; font-weight: 600 }
th, td { padding: .22rem .5rem .22rem 0; border-bottom: 1px solid #e4e7ec } img { max-width: 100%; height: auto }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.n + td:not(.n), .n + th:not(.n) { padding-left: .6rem } td:first-child { white-space: nowrap }
section { border: 1px solid #d5dae2; border-radius: .5rem; padding: .2rem 1.1rem 1rem; margin: 1.4rem 0 }
section.edge { background: #fafafa } section h2 { margin-top: .7rem }
div.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.2rem }
"""


def novel_page(report: NovelReport, umap: bytes | None, dots: bytes | None) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    report
        What was found.
    umap, dots
        PNG of the map and of the dot plot, or ``None`` where there is none.
    """
    title = f"Novel cells of {report.data.replace(chr(92), '/').rsplit('/', 1)[-1]}"
    parts = [_summary(report)]
    if umap is not None:
        parts.append(_figure(umap, "Novel clusters in colour over known cells of the file, which are named in grey."))
    if report.clusters:
        parts.append(_overview(report))
    if dots is not None:
        parts.append(_figure(dots, "The best marker genes of each cluster, beside the known types of the file."))
    parts += [_card(report, cluster) for cluster in report.clusters]
    parts.append(_next(report))
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"{body}\n</body>\n</html>\n"
    )


def _summary(report: NovelReport) -> str:
    counts = ", ".join(f"{n} {escape(name)}" for name, n in report.cells_by_status.items())
    what = "novel and uncertain" if report.uncertain_too else "novel"
    warnings = "".join(f'<p class="note">Warning: {escape(text)}</p>' for text in report.warnings)
    return (
        f'<p class="note">{escape(report.model)}, stage {report.stage}, canal {escape(report.canal_version)}. '
        f"{report.cells} cells: {counts}. About {report.alpha:.0%} of known cells are called novel by chance "
        f"(alpha {report.alpha:g}). {report.taken} {what} cells were grouped into {len(report.clusters)} clusters of "
        f"{report.min_size} cells at least; {report.aside} are in none. Of those grouped, "
        f"{report.for_neighbours} were taken for their neighbours, not for their own verdict.</p>{warnings}"
    )


def _overview(report: NovelReport) -> str:
    head = ("cluster", "cells", "suggested name", "stands apart", "silhouette", "own neighbours", "mean p-value")
    rows = [
        (
            c.name, str(c.cells), escape(c.suggested), "yes" if c.apart else "no",
            f"{c.silhouette:.2f}", f"{c.own_share:.0%}", f"{c.p_value:.4f}",
        )
        for c in report.clusters
    ]  # fmt: skip
    note = (
        "A cluster stands apart where at least half of its cells' nearest neighbours are its own cells, not known "
        "ones, and its cells are nearer to each other than to the nearest known type (silhouette above 0). A cluster "
        "that does not is most likely the edge of a known type, damaged cells or doublets."
    )
    return f'<h2>Clusters</h2>{_table(head, rows, {1, 4, 5, 6})}<p class="note">{note}</p>'


def _card(report: NovelReport, cluster: NovelCluster) -> str:
    said = "Stands apart from the known cells." if cluster.apart else "Does not stand apart from the known cells."
    tables = [
        ("Marker genes against the known cells", _markers(cluster.markers)),
        ("Marker genes against the other clusters", _markers(cluster.markers_others)),
        ("Nearest known types", _near(cluster.near)),
    ]
    if cluster.batches:
        tables.append((f"Cells by {escape(report.batch)}", _batches(cluster)))
    grid = "".join(f"<div><h3>{title}</h3>{content}</div>" for title, content in tables)
    kind = "" if cluster.apart else ' class="edge"'
    return (
        f"<section{kind}><h2>Cluster {escape(cluster.name)}: {escape(cluster.suggested)}</h2>"
        f'<p class="note">{cluster.cells} cells. {said} Mean novelty {cluster.novelty:.2f}, mean p-value '
        f"{cluster.p_value:.4f}; the model would be {cluster.confidence:.0%} sure of a known type.</p>"
        f'<div class="tables">{grid}</div></section>'
    )


def _markers(markers: Sequence[MarkerGene]) -> str:
    if not markers:
        return '<p class="note">None is significant, or there is nothing to compare with.</p>'
    head = ("gene", "log2 fold", "in cluster", "in others")
    rows = [(escape(m.gene), _fold(m), f"{m.share:.0%}", f"{m.share_others:.0%}") for m in markers]
    return _table(head, rows, {1, 2, 3})


def _fold(marker: MarkerGene) -> str:
    """Return how much more there is, which has no number where the others have none."""
    return f"{marker.fold:.1f}" if marker.share_others else "only here"


def _near(near: Sequence[NearType]) -> str:
    rows = [(escape(n.name), f"{n.share:.0%}", "" if n.distance is None else f"{n.distance:.2f}") for n in near]
    return _table(("type", "cells", "distance"), rows, {1, 2})


def _batches(cluster: NovelCluster) -> str:
    rows = [(escape(name), str(n), f"{n / cluster.cells:.0%}") for name, n in cluster.batches.items()]
    return _table(("batch", "cells", "share"), rows, {1, 2})


def _next(report: NovelReport) -> str:
    if not report.clusters:
        return "<h2>Nothing to name</h2><p>No group of novel cells is large enough. The model knows what is here.</p>"
    return (
        "<h2>Name them</h2><p>Write a name into the last column of <code>names.csv</code> for each cluster that is a "
        "type; leave the others empty. Two clusters with one name become one type. Then run <code>canal novel name"
        "</code> on this folder and teach <code>named.h5ad</code> with <code>canal stage add</code>.</p>"
    )


def _figure(png: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: set[int]) -> str:
    lines = "".join(_line(row, "td", numeric) for row in rows)
    return f"<table><thead>{_line(head, 'th', numeric)}</thead><tbody>{lines}</tbody></table>"


def _line(values: Sequence[str], tag: str, numeric: set[int]) -> str:
    kinds = [(value, ' class="n"' if k in numeric else "") for k, value in enumerate(values)]
    return f"<tr>{''.join(f'<{tag}{kind}>{value}</{tag}>' for value, kind in kinds)}</tr>"
