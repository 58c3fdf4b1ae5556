"""Highly variable genes of a file.

Highly variable genes of a file.

Genes that mark the types of a stage, and the genes that go along with them (scAnnoNet, first step).

Shapes: n cells, g genes, M markers, C types.
"""

import warnings

import numpy as np
import scipy.sparse as sp
from scipy import stats

from canal.config import SpecificGenesConfig
from canal.data.cells import Cells
from canal.data.values import unit_rows

BLOCK = 8_192  # cells scaled at a time


def rank_by_variance(cells: Cells) -> np.ndarray:
    """Rank the genes by the variance of the unit profiles, highest first.

    A profile is the natural ``log1p`` expression of a cell divided by its Euclidean length, the space in which cells
    are compared. Dispersion within bins of like expression (Seurat's choice) was tried and is worse here: it picks
    other genes in every data set, so that a gene of a later stage was rarely followed from the first.

    Parameters
    ----------
    cells
        Training cells only: test cells would leak into the choice.

    Returns
    -------
    Columns of ``cells``, of shape (genes,). Genes of equal variance go by their column.
    """
    cells_n, genes = cells.expression.shape
    total, square = np.zeros(genes), np.zeros(genes)
    for start in range(0, cells_n, BLOCK):
        unit = unit_rows(cells.expression[start : start + BLOCK])
        total += np.bincount(unit.indices, unit.data, minlength=genes)
        square += np.bincount(unit.indices, unit.data * unit.data, minlength=genes)
    return np.argsort(-(square / cells_n - (total / cells_n) ** 2), kind="stable")


def highly_variable(cells: Cells, n: int, first: np.ndarray | None = None) -> np.ndarray:
    """Choose the genes whose dispersion stands out among genes of like expression.

    The measure is that of scanpy's flavour "seurat".

    Parameters
    ----------
    cells
        Training cells only: test cells would leak into the choice.
    n
        Genes to choose; all genes where the file has fewer.
    first
        Columns that come before all others, however these vary; all columns are alike by default.

    Returns
    -------
    Their columns, ascending, of shape (min(n, genes),). The same cells give the same genes.
    """
    genes = cells.expression.shape[1]
    if n >= genes:
        return np.arange(genes)
    mean = np.asarray(cells.expression.mean(axis=0)).ravel()
    score = _dispersion(cells) if _varies(cells) else np.full(genes, -np.inf)
    score[np.isnan(score)] = -np.inf
    # Genes that have no dispersion fill up by expression; equal genes go by their column.
    later = np.zeros(genes, dtype=bool) if first is None else ~np.isin(np.arange(genes), first)
    best = np.lexsort((np.arange(genes), -mean, -score, later))[:n]
    return np.sort(best)


def _varies(cells: Cells) -> bool:
    highest = cells.expression.max(axis=0).toarray()
    lowest = cells.expression.min(axis=0).toarray()
    return bool((highest > lowest).any())


def _dispersion(cells: Cells) -> np.ndarray:
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(X=cells.expression.copy())
    adata.uns["log1p"] = {"base": None}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        every = cells.expression.shape[1]
        table = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=every, inplace=False)
    return np.array(table["dispersions_norm"], dtype=np.float64)


LITTLE = 1e-6


def type_specific(cells: Cells, n: int, config: SpecificGenesConfig) -> np.ndarray:
    """Choose markers of each type, and highly variable genes that are co-expressed with one of them.

    Where fewer than two types have enough cells there is nothing to compare, and the most variable genes are chosen,
    as many as two types could have markers.

    Parameters
    ----------
    cells
        Labelled training cells only: held-out cells would leak into the choice.
    n
        Highly variable genes to choose among.
    config
        Bounds of both choices.

    Returns
    -------
    Columns of ``cells``, ascending. The same cells give the same genes.
    """
    assert cells.labels is not None
    names, counts = np.unique(cells.labels.astype(str), return_counts=True)
    types = names[counts >= config.min_cells]
    if len(types) < 2:
        return highly_variable(cells, 2 * config.markers)
    expressed = np.flatnonzero(cells.expression.getnnz(axis=0) >= config.min_cells)
    variable = np.intersect1d(highly_variable(cells, n), expressed)
    values = cells.expression[:, variable].tocsr()
    change = log2_fold_changes(values, cells.labels.astype(str), types)
    markers = marker_positions(change, config.markers, config.fold_change)
    together = coexpressed(values, markers, config.false_discovery, config.min_correlation)
    return np.asarray(variable[np.union1d(markers, together)])


def log2_fold_changes(values: sp.csr_matrix, labels: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Return log2 of each gene's mean in a type over the mean of its means in the other types, (C, g).

    Parameters
    ----------
    values
        CSR (n, g), natural ``log1p`` of values per 10,000.
    labels
        Type of each cell, (n,).
    types
        Types that are compared, two or more, (C,).
    """
    x = values.astype(np.float64)
    means = np.stack([np.asarray(x[labels == t].mean(axis=0)).ravel() for t in types])
    others = (means.sum(axis=0) - means) / (len(types) - 1)
    return np.asarray(np.log2((means + LITTLE) / (others + LITTLE)))


def marker_positions(change: np.ndarray, most: int, least: float) -> np.ndarray:
    """Return the genes of the highest fold changes of each type, at most ``most`` and all above ``least``."""
    best = np.argsort(-change, axis=1, kind="stable")[:, :most]
    high = np.take_along_axis(change, best, axis=1) > least
    return np.unique(best[high])


def coexpressed(values: sp.csr_matrix, markers: np.ndarray, rate: float, least: float) -> np.ndarray:
    """Return the genes, beside the markers, whose Pearson correlation with a marker is not chance.

    Two-sided t-test of every pair with n - 2 degrees of freedom; p-values corrected over all pairs (Benjamini and
    Hochberg 1995).

    Parameters
    ----------
    values
        CSR (n, g).
    markers
        Positions of the markers, (M,).
    rate
        Expected share of false pairs among those that pass.
    least
        Absolute correlation that a pair needs besides: with thousands of cells next to nothing is significant.
    """
    others = np.setdiff1d(np.arange(values.shape[1]), markers)
    if not len(markers) or not len(others):
        return others[:0]
    r = correlations(values, markers)[:, others]
    freedom = values.shape[0] - 2
    t = r * np.sqrt(freedom / np.maximum(1.0 - r**2, np.finfo(float).tiny))
    p = stats.false_discovery_control(2.0 * stats.t.sf(np.abs(t), freedom), axis=None).reshape(r.shape)
    return np.asarray(others[((p < rate) & (np.abs(r) >= least)).any(axis=0)])


def correlations(values: sp.csr_matrix, markers: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of each marker with each gene, (M, g); 0 where a gene does not vary."""
    n = values.shape[0]
    x = values.astype(np.float64)
    mean = np.asarray(x.mean(axis=0)).ravel()
    variance = np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    spread = np.sqrt(np.maximum(variance, 0.0))
    # Sparse products: the cells are never dense over all genes.
    covariance = (x[:, markers].T @ x).toarray() / n - np.outer(mean[markers], mean)
    scale = np.outer(spread[markers], spread)
    r = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    return np.asarray(np.clip(r, -1.0, 1.0))
