"""Highly variable genes of a file."""

import warnings

import numpy as np

from canal.data.cells import Cells


def highly_variable(cells: Cells, n: int) -> np.ndarray:
    """Choose the genes whose dispersion stands out among genes of like expression.

    The measure is that of scanpy's flavour "seurat".

    Parameters
    ----------
    cells
        Training cells only: test cells would leak into the choice.
    n
        Genes to choose; all genes where the file has fewer.

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
    best = np.lexsort((np.arange(genes), -mean, -score))[:n]
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
