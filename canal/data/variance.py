"""Highly variable genes of a file."""

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells


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
    unit = unit_rows(cells.expression)
    mean = np.asarray(unit.mean(axis=0), dtype=np.float64).ravel()
    square = np.asarray(unit.multiply(unit).mean(axis=0), dtype=np.float64).ravel()
    return np.argsort(-(square - mean**2), kind="stable")


def unit_rows(values: sp.csr_matrix) -> sp.csr_matrix:
    """Divide each row by its Euclidean length; a row of zeros stays zero.

    Parameters
    ----------
    values
        CSR of shape (cells, genes).
    """
    length = np.sqrt(np.asarray(values.multiply(values).sum(axis=1), dtype=np.float64).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    scaled = values.tocsr(copy=True).astype(np.float32)
    scaled.data *= np.repeat(scale, np.diff(scaled.indptr)).astype(np.float32)
    return scaled
