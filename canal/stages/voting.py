"""Smoothing an annotation over clusters, as users of CellTypist expect."""

import warnings

import numpy as np

from canal.data.overlap import same_threads_after


def majority_vote(
    cell_type: np.ndarray, representation: np.ndarray, clusters: np.ndarray | None, *, seed: int
) -> np.ndarray:
    """Give every cell the type that most cells of its cluster have.

    Parameters
    ----------
    cell_type
        Names of types, of shape (cells,).
    representation
        Float32 (cells, D); cells are over-clustered in it where ``clusters`` is not given.
    clusters
        Name of each cell's cluster, (cells,), or ``None``.
    seed
        Seed of the clustering.
    """
    groups = over_cluster(representation, seed) if clusters is None else clusters
    result = cell_type.copy()
    for group in sorted(set(groups.tolist())):
        rows = np.flatnonzero(groups == group)
        names, counts = np.unique(cell_type[rows].astype(str), return_counts=True)
        result[rows] = names[counts.argmax()]
    return result


def over_cluster(representation: np.ndarray, seed: int) -> np.ndarray:
    """Cluster finely: Leiden on 10 neighbours, the resolution grows with the number of cells as in CellTypist."""
    n = len(representation)
    if n < 30:
        return np.zeros(n, dtype=object).astype(str)
    import anndata as ad
    import scanpy as sc

    resolution = next((r for top, r in ((5_000, 5), (20_000, 10), (40_000, 15), (100_000, 20)) if n < top), 25)
    adata = ad.AnnData(obsm={"X_canal": representation}, shape=(n, 0))
    with warnings.catch_warnings(), same_threads_after():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(adata, n_neighbors=10, use_rep="X_canal", random_state=seed)
        sc.tl.leiden(adata, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    return np.asarray(adata.obs["leiden"].astype(str), dtype=object)
