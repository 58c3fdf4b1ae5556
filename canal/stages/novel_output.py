"""The files of `canal novel find`: its page, its pictures and the novel cells."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canal.data.read import read_adata
from canal.report.annotation import Annotation
from canal.report.novel_figures import dot_plot, umap_picture
from canal.report.novel_page import novel_page
from canal.report.novel_report import NovelReport
from canal.stages.novel_clusters import places_of
from canal.stages.novel_evidence import Groups
from canal.stages.novel_folder import CELLS, DOTS, MAP, PAGE

if TYPE_CHECKING:
    import anndata as ad

SHOWN_MARKERS = 6  # of each cluster in the dot plot


def result_files(
    data: "str | Path | ad.AnnData", annotation: Annotation, cells: Groups, report: NovelReport
) -> dict[str, Callable[[Path], object]]:
    """Return what writes each file of the result, by name: the page, and pictures and cells where there are any."""
    umap, dots = (_map(cells), _dots(cells, report)) if report.taken else (None, None)
    text = novel_page(report, umap, dots)
    files: dict[str, Callable[[Path], object]] = {PAGE: lambda path: path.write_text(text, encoding="utf-8")}
    if umap is not None:
        files[MAP] = lambda path: path.write_bytes(umap)
    if dots is not None:
        files[DOTS] = lambda path: path.write_bytes(dots)
    if report.taken:
        files[CELLS] = partial(_write_cells, data, annotation, cells)
    return files


def _map(cells: Groups) -> bytes:
    names = np.where(cells.known, cells.best, cells.groups)
    return umap_picture(places_of(cells.points, cells.seed), names, cells.clusters, cells.known)


def _dots(cells: Groups, report: NovelReport) -> bytes | None:
    """Draw the best markers of each cluster, each gene once."""
    chosen = [m.gene for c in report.clusters for m in c.markers[:SHOWN_MARKERS]]
    genes = list(dict.fromkeys(chosen))
    if not genes:
        return None
    place = {gene: k for k, gene in enumerate(cells.genes)}
    values = cells.expression[:, [place[gene] for gene in genes]].toarray()
    types = sorted(set(cells.best[cells.known].tolist()))
    masks = {f"cluster {name}": cells.groups == name for name in cells.clusters}
    masks |= {name: cells.known & (cells.best == name) for name in types}
    share = np.array([(values[mask] > 0).mean(axis=0) for mask in masks.values()])
    mean = np.array([values[mask].mean(axis=0) for mask in masks.values()])
    return dot_plot(genes, list(masks), share, mean, {n: f"{n} ({int(m.sum())})" for n, m in masks.items()})


def _write_cells(data: "str | Path | ad.AnnData", annotation: Annotation, cells: Groups, path: Path) -> None:
    """Write the novel cells with all they have in their file, and what was found of them."""
    adata = read_adata(data) if isinstance(data, str | Path) else data
    rows = cells.rows[~cells.known]
    part = Annotation(
        cell_names=annotation.cell_names[rows], cell_type=annotation.cell_type[rows],
        confidence=annotation.confidence[rows], representation=annotation.representation[rows],
        facts=annotation.facts,
        columns={k: v[rows] for k, v in annotation.columns.items()} | {"cluster": cells.groups[~cells.known]},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        part.to_adata(adata[rows].copy(), copy=False).write_h5ad(path)
