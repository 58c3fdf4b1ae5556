"""Groups among novel cells: pure functions of arrays, nothing of a model in them.

Shapes: n novel cells, G genes, d principal components.
"""

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.data.overlap import same_threads_after

ASIDE = "-"  # the cluster of cells that belong to none
FEW = 20  # novel cells that are too few to be split
HIGHLY_VARIABLE = 2_000
COMPONENTS = 30
NEAREST = 15
MIXED = 0.3  # of `mixing`, from which two clusters are one at resolution 1
MIXED_FOR_MODEL = 0.5  # the same in the model's representation, where types that it does not know lie nearer
COMPARED = 400  # cells of a group that distances are taken to at most


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


def cluster_cells(
    expression: sp.csr_matrix,
    points: np.ndarray,
    representation: np.ndarray,
    *,
    resolution: float,
    min_size: int,
    seed: int,
) -> np.ndarray:
    """Cluster novel cells by Leiden on their own principal components, and join what is not really apart.

    Leiden splits also what is alike. Among the components of all cells of the file, where differences between types
    weigh most, such parts lie in one another; they are joined. So are parts that lie in one another in the model's
    representation, which has learned not to mind batches.

    Parameters
    ----------
    expression
        As for `components`, (n, G).
    points
        Components of these cells among all cells of the file, (n, d).
    representation
        Of these cells by the model, (n, D).
    resolution
        Higher for more clusters, and for fewer that are joined.
    min_size
        Clusters below are set aside.
    seed
        Seed of all that is random.

    Returns
    -------
    Clusters ``"1"``, ``"2"``, ... by size, or ``"-"``, of shape (n,).
    """
    n = expression.shape[0]
    raw = np.zeros(n, dtype=np.int64)
    if n >= max(FEW, 2 * min_size):
        spaces = ((points, MIXED * resolution), (representation, MIXED_FOR_MODEL * resolution))
        raw = joined(_leiden(expression, resolution, seed), spaces, seed=seed)
    values, inverse, counts = np.unique(raw, return_inverse=True, return_counts=True)
    names = np.full(len(values), ASIDE, dtype=object)
    order = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k] >= min_size]
    for rank, k in enumerate(order, start=1):
        names[k] = str(rank)
    result: np.ndarray = names[inverse]
    return result


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


def joined(clusters: np.ndarray, spaces: Sequence[tuple[np.ndarray, float]], *, seed: int) -> np.ndarray:
    """Join clusters whose cells have each other for neighbours in any of some spaces, the most mixed first.

    Parameters
    ----------
    clusters
        Number of the cluster of each cell, (n,).
    spaces
        Where the cells lie, (n, d), and the `mixing` there from which two clusters are one.
    seed
        Seed of the samples that stand for large clusters.
    """
    rng = np.random.default_rng(seed32(seed))
    result = clusters.copy()

    def mixed(a: int, b: int) -> float:
        return max(mixing(points[result == a], points[result == b], rng) / least for points, least in spaces)

    names = np.unique(result).tolist()
    pairs = {(a, b): mixed(a, b) for a, b in combinations(names, 2)}
    while pairs:
        (into, gone), most = max(pairs.items(), key=lambda item: (item[1], item[0]))
        if most < 1:
            break
        result[result == gone] = into
        names.remove(gone)
        pairs = {pair: value for pair, value in pairs.items() if not {into, gone} & set(pair)}
        for other in (name for name in names if name != into):
            first, second = sorted((into, other))
            pairs[first, second] = mixed(first, second)
    return result


def mixing(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> float:
    """Return how much two clusters lie in one another: 0 apart, 1 as if drawn from one; the lesser of both sides.

    It is the share of a cell's neighbours that are of the other cluster, over the share expected by chance.
    """
    from sklearn.neighbors import NearestNeighbors

    a, b = some(a, rng), some(b, rng)
    n = len(a) + len(b)
    k = max(1, min(NEAREST, min(len(a), len(b)) // 2))
    both = np.concatenate([a, b])
    index: Any = NearestNeighbors(n_neighbors=min(k + 1, n)).fit(both)
    in_b = index.kneighbors(both, return_distance=False)[:, 1:] >= len(a)  # the first is the cell itself
    from_a = in_b[: len(a)].mean() / (len(b) / (n - 1))
    from_b = (~in_b[len(a) :]).mean() / (len(a) / (n - 1))
    return float(min(from_a, from_b))


def renamed(clusters: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Return the clusters under their places in an order, from ``"1"``; those set aside stay so."""
    places = {name: str(k) for k, name in enumerate(order, start=1)}
    return np.array([places.get(name, ASIDE) for name in clusters.tolist()], dtype=object)


def _leiden(expression: sp.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    import anndata as ad
    import scanpy as sc

    points = components(expression, seed)
    adata = ad.AnnData(obsm={"X_pca": points}, shape=(len(points), 0))
    with warnings.catch_warnings(), same_threads_after():
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        sc.pp.neighbors(adata, n_neighbors=NEAREST, use_rep="X_pca", random_state=seed32(seed))
        sc.tl.leiden(
            adata, resolution=resolution, random_state=seed32(seed), flavor="igraph", n_iterations=2, directed=False
        )
    return np.asarray(adata.obs["leiden"].astype(int))


def some(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a sample that stands for a large group, (at most `COMPARED`, d)."""
    if len(points) <= COMPARED:
        return points
    chosen: np.ndarray = points[np.sort(rng.choice(len(points), COMPARED, replace=False))]
    return chosen


def seed32(seed: int) -> int:
    """Return a seed as scanpy and scikit-learn take it."""
    return seed % 2**32
