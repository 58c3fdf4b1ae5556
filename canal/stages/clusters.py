"""Clusters and maps of cells: principal components, UMAP coordinates, the majority vote of a cluster on its type.

Leiden and UMAP come from scanpy, which is imported when it is needed. Shapes: n cells, G genes, d components.
"""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.threads import same_threads_after
from canal.progress import Progress, Silent
from canal.seeds import numpy_generator

if TYPE_CHECKING:
    import anndata as ad

# Usual choices of a scanpy workflow; docs/novel.md names them.
HIGHLY_VARIABLE = 2_000  # genes that the components are of
COMPONENTS = 30
NEAREST = 15  # neighbours of a cell in the graph

# Of over-clustering for the majority vote.
FEWEST_TO_CLUSTER = 30  # cells; fewer are one cluster
VOTING_NEIGHBORS = 10
# Resolution of Leiden below a number of cells, and above the last of them: CellTypist's defaults up to 200,000 cells.
RESOLUTIONS = ((5_000, 5), (20_000, 10), (40_000, 15), (100_000, 20))
HIGHEST_RESOLUTION = 25
MOST_CLUSTERED = 20_000  # cells; of more, a sample is clustered
ASSIGNED_AT_ONCE = 4_000  # other cells that are put into clusters at a time
SCANPY_EXACT = 4_096  # cells below which scanpy's own neighbours are exact


@dataclass(frozen=True, kw_only=True)
class Components:
    """Axes of principal components, onto which further cells can be put.

    Attributes
    ----------
    genes
        Positions of the genes that they are of, (g,).
    centre
        Mean of these genes, (g,).
    axes
        One column a component, (g, d).
    """

    genes: np.ndarray
    centre: np.ndarray
    axes: np.ndarray

    def of(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return the components, float32 (n, d), of log-normalised cells, (n, G)."""
        return np.asarray(expression[:, self.genes] @ self.axes - self.centre @ self.axes, dtype=np.float32)


def principal_components(expression: sp.csr_matrix, seed: int) -> np.ndarray:
    """Return principal components of the highly variable genes, float32 (n, d); the same for the same cells.

    Parameters
    ----------
    expression
        Natural ``log1p`` of normalised values, (n, G), two cells at least.
    seed
        Seed of the decomposition.
    """
    return components_of(expression, seed)[0]


def components_of(expression: sp.csr_matrix, seed: int) -> tuple[np.ndarray, Components]:
    """Return what `principal_components` does, and the axes.

    Parameters
    ----------
    expression, seed
        As for `principal_components`.
    """
    import anndata as ad
    import scanpy as sc

    # Genes that hardly any cell expresses say nothing of groups of cells.
    expressed = np.asarray((expression > 0).sum(axis=0)).ravel() >= min(3, expression.shape[0])
    genes = np.flatnonzero(expressed) if expressed.any() else np.arange(expression.shape[1])
    values = expression[:, expressed] if expressed.any() else expression
    d = min(COMPONENTS, values.shape[0] - 1, values.shape[1] - 1)
    if d < 1:
        as_they_are = Components(genes=genes, centre=np.zeros(len(genes)), axes=np.eye(len(genes)))
        return np.asarray(values.toarray(), dtype=np.float32), as_they_are
    adata = ad.AnnData(X=values.copy(), uns={"log1p": {"base": None}})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        if values.shape[1] > HIGHLY_VARIABLE:
            sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=HIGHLY_VARIABLE)
            variable = adata.var["highly_variable"].to_numpy()
            genes, adata = genes[variable], adata[:, variable].copy()
        sc.pp.pca(adata, n_comps=min(d, adata.n_vars - 1), random_state=seed32(seed))
    centre = np.asarray(adata.X.mean(axis=0)).ravel()
    components = Components(genes=genes, centre=centre, axes=np.asarray(adata.varm["PCs"]))
    return np.asarray(adata.obsm["X_pca"], dtype=np.float32), components


def umap_coordinates(points: np.ndarray, seed: int) -> np.ndarray:
    """Return the UMAP coordinates, float64 (n, 2), of cells that lie at points (n, d)."""
    # Fewer cells than neighbours have no graph: they are drawn by their first two coordinates.
    if len(points) < NEAREST + 1:
        padded = np.pad(points.astype(np.float64), ((0, 0), (0, 2)))
        return padded[:, :2]
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(obsm={"X_pca": points}, shape=(len(points), 0))
    with warnings.catch_warnings(), same_threads_after():
        warnings.simplefilter("ignore")  # scanpy's and umap's notices
        find_neighbours(adata, "X_pca", NEAREST, seed32(seed))
        sc.tl.umap(adata, random_state=seed32(seed))
    return np.asarray(adata.obsm["X_umap"], dtype=np.float64)


def seed32(seed: int) -> int:
    """Return a seed within the 32 bits that scanpy and scikit-learn take."""
    return seed % 2**32


def majority_vote(
    cell_type: np.ndarray,
    representation: np.ndarray,
    clusters: np.ndarray | None,
    *,
    seed: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """Give every cell the type that most cells of its cluster have; of equally many, the first in the alphabet.

    Parameters
    ----------
    cell_type
        Names of types, of shape (n,).
    representation
        Float32 (n, D); the cells are over-clustered in it where ``clusters`` is not given.
    clusters
        Name of each cell's cluster, (n,), or ``None``.
    seed
        Seed of the clustering.
    progress
        Told how far the clustering is.
    """
    if clusters is None:
        clusters = _over_clustered(representation, seed, progress or Silent())
    result = cell_type.copy()
    for cluster in sorted(set(clusters.tolist())):
        rows = np.flatnonzero(clusters == cluster)
        names, counts = np.unique(cell_type[rows].astype(str), return_counts=True)
        result[rows] = names[counts.argmax()]
    return result


def _over_clustered(representation: np.ndarray, seed: int, progress: Progress) -> np.ndarray:
    """Cluster cells finely; return the name of each cell's cluster, (n,).

    Leiden on the graph of 10 neighbours, as CellTypist's over-clustering, but in the model's representation instead of
    principal components of the expression. The resolution grows with the number of cells: 5, 10, 15, 20 and 25 below
    5,000, 20,000, 40,000, 100,000 and 200,000 cells, as CellTypist's; from 200,000 cells on it stays 25, where
    CellTypist takes 30. Above `MOST_CLUSTERED` cells a sample is clustered, at the resolution for all of them, and each
    other cell is put into the cluster of the sampled cell nearest to it.
    """
    n = len(representation)
    if n < FEWEST_TO_CLUSTER:
        return np.zeros(n, dtype=object).astype(str)
    resolution = HIGHEST_RESOLUTION
    for below, value in RESOLUTIONS:
        if n < below:
            resolution = value
            break
    # The sample counts as one step, and each block of the other cells as another.
    sampled = np.arange(n)
    if n > MOST_CLUSTERED:
        sampled = np.sort(numpy_generator(seed, "over-clustering").choice(n, MOST_CLUSTERED, replace=False))
    others = np.setdiff1d(np.arange(n), sampled, assume_unique=True)
    progress.start(1 + -(-len(others) // ASSIGNED_AT_ONCE), "clustering")
    points = np.asarray(representation[sampled])
    clusters = np.empty(n, dtype=object)
    clusters[sampled] = _leiden(points, resolution, seed)
    progress.advance(1)
    if len(others):
        from sklearn.neighbors import NearestNeighbors

        index: Any = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(points)
        for start in range(0, len(others), ASSIGNED_AT_ONCE):
            rows = others[start : start + ASSIGNED_AT_ONCE]
            nearest = index.kneighbors(representation[rows], return_distance=False)[:, 0]
            clusters[rows] = clusters[sampled[nearest]]
            progress.advance(1)
    progress.close()
    return clusters


def _leiden(points: np.ndarray, resolution: float, seed: int) -> np.ndarray:
    """Return the name of each cell's Leiden cluster in the graph of `VOTING_NEIGHBORS` neighbours, (n,)."""
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(obsm={"X_canal": points}, shape=(len(points), 0))
    with warnings.catch_warnings(), same_threads_after():
        warnings.simplefilter("ignore")  # scanpy's notices
        find_neighbours(adata, "X_canal", VOTING_NEIGHBORS, seed)
        sc.tl.leiden(adata, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    return np.asarray(adata.obs["leiden"].astype(str), dtype=object)


def find_neighbours(adata: "ad.AnnData", representation: str, k: int, seed: int) -> None:
    """Find the k nearest neighbours of each cell, exactly, as scanpy stores them.

    From 4,096 cells on scanpy would take approximate ones from pynndescent, whose answer differs between machines and
    which fails beside scikit-learn 1.9: its sparse result is of a kind that scanpy 1.11 cannot read.

    Parameters
    ----------
    adata
        The cells; the graph is added to it.
    representation
        Name of the points in ``obsm``, (n, d).
    k
        Neighbours of a cell, itself among them.
    seed
        Seed of scanpy.
    """
    import scanpy as sc
    from sklearn.neighbors import KNeighborsTransformer

    keep_compiled()

    class Exact(KNeighborsTransformer):  # type: ignore[misc]
        """Exact neighbours, as the sparse matrix that scanpy reads."""

        def fit_transform(self, points: np.ndarray, y: None = None) -> sp.csr_matrix:
            """Return the distances to the neighbours, (n, n)."""
            return sp.csr_matrix(super().fit_transform(points, y))

    exact = None
    if adata.n_obs >= SCANPY_EXACT:
        exact = Exact(n_neighbors=k - 1, algorithm="brute")
    sc.pp.neighbors(adata, n_neighbors=k, use_rep=representation, random_state=seed, transformer=exact)


@cache
def keep_compiled() -> None:
    """Let numba keep on disk what it compiles of umap, once a process: the same code is loaded by later processes.

    Compiling takes each process 17 s of a core; umap asks numba to keep only some of its functions. Where nothing can
    be written (neither beside the package nor in the user's cache) it is compiled anew, as without this.
    """
    from umap import layouts, umap_

    functions: list[Any] = [umap_.smooth_knn_dist, umap_.compute_membership_strengths, layouts.clip]
    # Of umap 0.5.8 on; earlier ones compile it within a function.
    functions.append(getattr(layouts, "_nb_optimize_layout_euclidean_single_epoch", None))
    for function in functions:
        with suppress(AttributeError, RuntimeError):  # of another kind in a later umap; no place to write to
            function.enable_caching()
