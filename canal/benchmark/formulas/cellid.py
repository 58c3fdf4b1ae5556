"""Cell-ID: gene signatures by multiple correspondence analysis (Cortal et al., Nature Biotechnology 2021, 39:1095).

Cells and genes are placed in one space; the genes nearest a cell, or the centre of a type, are its signature. A cell
is of the type whose signature it shares most, by a hypergeometric test.

Shapes: N cells, G genes, D dimensions, C types, S genes of a signature.
"""

import numpy as np
import scipy.linalg

UNASSIGNED = "unassigned"
DIMENSIONS, SIGNATURE = 50, 200
LEAST_EVIDENCE = 2.0  # -log10 of the adjusted p-value
FEWEST = 10  # genes of a signature that the other file must have


def correspondence(values: np.ndarray, dimensions: int = DIMENSIONS) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of cells (N, D) and genes (G, D).

    Every gene counts twice, as its expression scaled to 0 ... 1 and as one less that; the table is divided by the
    roots of its margins, and its leading right singular vectors but the first are the cells' places.

    Parameters
    ----------
    values
        Log expression, (N, G); every gene must vary.
    dimensions
        D; fewer where there are fewer cells.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = ((values - low) / (high - low)).T
    fuzzy = np.concatenate([scaled, 1 - scaled])
    total, rows = fuzzy.sum(), fuzzy.sum(axis=1)
    table = fuzzy / np.sqrt(fuzzy.sum(axis=0)) / np.sqrt(rows)[:, None]
    n = table.shape[1]
    kept = min(dimensions, n - 1)
    vectors = scipy.linalg.eigh(table.T @ table, subset_by_index=(n - 1 - kept, n - 2))[1][:, ::-1]
    genes = (table @ vectors) / np.sqrt(rows / total)[:, None]
    return np.sqrt(n) * vectors, genes[: len(scaled)]


def nearest_genes(places: np.ndarray, genes: np.ndarray, size: int = SIGNATURE) -> np.ndarray:
    """Return the genes nearest each place, int (places, S), from places (., D) and genes (G, D)."""
    distance = (genes**2).sum(axis=1)[None] - 2 * places @ genes.T
    return np.argsort(distance, axis=1, kind="stable")[:, :size]


def evidence(shared: np.ndarray, genes: int, drawn: int, sizes: np.ndarray) -> np.ndarray:
    """Return -log10 of the adjusted p-values (N, C) of sharing so many genes or more.

    Parameters
    ----------
    shared
        Genes that cell and type share, int (N, C).
    genes
        Genes in all.
    drawn
        Genes of a cell's signature.
    sizes
        Genes of each type's signature, (C,).
    """
    from scipy.stats import hypergeom  # a second to import: only for those who need it

    p = hypergeom.sf(shared - 1, genes, sizes[None], drawn)
    return np.asarray(-np.log10(np.maximum(_benjamini_hochberg(p), 1e-300)))


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjust the p-values of each cell over the types, (N, C)."""
    n = p.shape[1]
    order = np.argsort(p, axis=1)
    scaled = np.take_along_axis(p, order, axis=1) * n / np.arange(1, n + 1)
    least = np.minimum.accumulate(scaled[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(least, 1.0), axis=1)
    return adjusted
