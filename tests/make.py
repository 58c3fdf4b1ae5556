"""Toy cells from one seed, shared by all tests.

Every type raises genes of its own, so that types can be told apart; every batch has a depth and a
gene-wise shift.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import anndata as ad

TYPES = ("B", "CD4 T", "CD8 T", "NK", "CD14 Mono", "DC", "HSC", "MK")


def make_counts(types: np.ndarray, batches: np.ndarray, n_genes: int, seed: int, markers: int = 8) -> np.ndarray:
    """Return counts of shape (cells, genes); ``types`` and ``batches`` are positions, one a cell.

    Genes ``k * markers`` to ``(k + 1) * markers`` belong to type ``k``, whatever the seed: two
    files of the same types agree on their markers.
    """
    rng = np.random.default_rng(seed)
    level = np.random.default_rng(0).gamma(0.6, 1.0, n_genes)  # the same genes are high in every file
    rate = np.tile(level, (len(types), 1))
    for k in range(int(types.max()) + 1):
        block = slice((k * markers) % n_genes, (k * markers) % n_genes + markers)
        rate[types == k, block] += 6.0
    shift = rng.lognormal(0.0, 0.2, (int(batches.max()) + 1, n_genes))
    depth = rng.lognormal(0.0, 0.3, len(types))
    return rng.poisson(rate * shift[batches] * depth[:, None]).astype(np.float32)


def make_adata(
    n_cells: int = 120,
    n_genes: int = 60,
    *,
    types: int | Sequence[str] = 3,
    batches: int = 1,
    scale: Literal["counts", "ln", "log2", "linear"] = "counts",
    layout: Literal["csr", "csc", "dense"] = "csr",
    genes: Sequence[str] | None = None,
    prefix: str = "cell",
    seed: int = 0,
) -> "ad.AnnData":
    """Return toy cells with ``obs['cell_type']`` and ``obs['batch']``.

    Parameters
    ----------
    types
        Number of types, or their names; the name decides the markers where it is one of `TYPES`.
    scale
        What ``X`` holds; normalised values are scaled to 10,000 a cell.
    genes
        Names of the genes; ``GENE0``, ``GENE1``, ... by default.
    prefix
        Begins the cell names; two files that are used together need two.
    seed
        The one seed of everything that is random.
    """
    import anndata as ad
    import pandas as pd

    names = TYPES[:types] if isinstance(types, int) else tuple(types)
    kinds = np.array([TYPES.index(n) if n in TYPES else len(TYPES) + k for k, n in enumerate(names)])
    of_cell = np.arange(n_cells) % len(names)
    batch = np.arange(n_cells) // len(names) % batches
    genes = [f"GENE{g}" for g in range(n_genes)] if genes is None else list(genes)
    values = to_scale(make_counts(kinds[of_cell], batch, len(genes), seed), scale)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(np.array(names, dtype=object)[of_cell]),
            "batch": pd.Categorical([f"batch{b}" for b in batch]),
        },
        index=[f"{prefix}{c}" for c in range(n_cells)],
    )
    matrix = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}[layout](values)
    return ad.AnnData(X=matrix, obs=obs, var=pd.DataFrame(index=genes))


def to_scale(counts: np.ndarray, scale: str) -> np.ndarray:
    """Return counts of shape (cells, genes) on another scale, float32; a reference of its own."""
    if scale == "counts":
        return counts.astype(np.float32)
    linear = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4
    return {"linear": linear, "ln": np.log1p(linear), "log2": np.log2(1 + linear)}[scale].astype(np.float32)
