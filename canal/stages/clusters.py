"""Smoothing an annotation over clusters, as users of CellTypist expect."""

import warnings

import numpy as np
import scipy.sparse as sp

from canal.data.threads import same_threads_after

HIGHLY_VARIABLE = 2_000
COMPONENTS = 30
NEAREST = 15


def components(expression: sp.csr_matrix, seed: int) -> np.ndarray:
    """Return principal components of the highly variable genes, float32 (cells, d); the same for the same cells.

    Parameters
    ----------
    expression
        Natural logarithm of normalised values, (cells, G), two cells at least.
    seed
        Seed of the decomposition.
    """
    import anndata as ad
    import scanpy as sc

    genes = np.asarray((expression > 0).sum(axis=0)).ravel() >= min(3, expression.shape[0])
    kept = expression[:, genes] if genes.any() else expression
    d = min(COMPONENTS, kept.shape[0] - 1, kept.shape[1] - 1)
    if d < 1:
        return np.asarray(kept.toarray(), dtype=np.float32)
    adata = ad.AnnData(X=kept.copy(), uns={"log1p": {"base": None}})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        if kept.shape[1] > HIGHLY_VARIABLE:
            sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=HIGHLY_VARIABLE)
            adata = adata[:, adata.var["highly_variable"].to_numpy()].copy()
        sc.pp.pca(adata, n_comps=min(d, adata.n_vars - 1), random_state=seed32(seed))
    return np.asarray(adata.obsm["X_pca"], dtype=np.float32)


def places_of(points: np.ndarray, seed: int) -> np.ndarray:
    """Return where to draw cells that lie at points (cells, d): UMAP, of shape (cells, 2)."""
    if len(points) < NEAREST + 1:
        padded = np.pad(points.astype(np.float64), ((0, 0), (0, 2)))
        return padded[:, :2]
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(obsm={"X_pca": points}, shape=(len(points), 0))
    with warnings.catch_warnings(), same_threads_after():
        warnings.simplefilter("ignore")  # scanpy's and umap's notices
        sc.pp.neighbors(adata, n_neighbors=NEAREST, use_rep="X_pca", random_state=seed32(seed))
        sc.tl.umap(adata, random_state=seed32(seed))
    return np.asarray(adata.obsm["X_umap"], dtype=np.float64)


def seed32(seed: int) -> int:
    """Return a seed as scanpy and scikit-learn take it."""
    return seed % 2**32


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
