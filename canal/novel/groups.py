"""Clusters of novel cells, and the evidence for each: pure functions of arrays, without a model.

Shapes: n novel cells, m known cells of the same file, G genes, d principal components, D dimensions of the model's
representation.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.threads import same_threads_after, single_threaded
from canal.report.groups import MarkerGene
from canal.stages.clusters import NEAREST, find_neighbours, principal_components, seed32

if TYPE_CHECKING:
    import anndata as ad


ASIDE = "-"  # the cluster of cells that belong to none
KNOWN = "known"  # the group of the known cells


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The novel cells (first) and known cells of a file that are compared with each other.

    Attributes
    ----------
    rows
        Their positions in the file, (cells,).
    groups
        Cluster of each cell, `ASIDE` or `KNOWN`, (cells,).
    best
        Known type that comes nearest to each cell, (cells,).
    expression
        Log-normalised, (cells, G).
    genes
        Names of the G genes.
    points
        Principal components, (cells, d).
    seed
        Seed of all that is random.
    """

    rows: np.ndarray
    groups: np.ndarray
    best: np.ndarray
    expression: sp.csr_matrix
    genes: tuple[str, ...]
    points: np.ndarray
    seed: int

    @property
    def known(self) -> np.ndarray:
        """Which of them are known cells, bool (cells,)."""
        return np.asarray(self.groups == KNOWN)

    @property
    def clusters(self) -> list[str]:
        """Names of the clusters, in order."""
        return sorted(set(self.groups.tolist()) - {KNOWN, ASIDE}, key=int)


LEAST_TO_SPLIT = 20  # novel cells below which all of them are one cluster
# Mixing from which two clusters are one, at resolution 1. In the model's representation types that it does not know lie
# nearer to each other: the second was chosen on the test files of the immune stream with one type left out, by
# benchmarks/novel_find.py (docs/novelty.md).
JOINED_FROM = 0.3
JOINED_FROM_IN_MODEL = 0.5


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
    # Split by Leiden, then join; few cells stay together.
    n = expression.shape[0]
    numbers = np.zeros(n, dtype=np.int64)
    if n >= max(LEAST_TO_SPLIT, 2 * min_size):
        spaces = ((points, JOINED_FROM * resolution), (representation, JOINED_FROM_IN_MODEL * resolution))
        split = _leiden(expression, resolution, seed)
        # Hundreds of searches among 800 cells: sharing one out between two threads takes as long as ten of them, or
        # more where other processes want the cores, too.
        with single_threaded():
            numbers = join_mixed(split, spaces, seed=seed)
    # Name the clusters by size; those that are too small stay aside.
    values, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    names = np.full(len(values), ASIDE, dtype=object)
    rank = 0
    for k in np.argsort(-counts, kind="stable").tolist():
        if counts[k] >= min_size:
            rank += 1
            names[k] = str(rank)
    return np.asarray(names[inverse])


def _leiden(expression: sp.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    import anndata as ad
    import scanpy as sc

    points = principal_components(expression, seed)
    adata = ad.AnnData(obsm={"X_pca": points}, shape=(len(points), 0))
    with warnings.catch_warnings(), same_threads_after():
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        find_neighbours(adata, "X_pca", NEAREST, seed32(seed))
        sc.tl.leiden(
            adata, resolution=resolution, random_state=seed32(seed), flavor="igraph", n_iterations=2, directed=False
        )
    return np.asarray(adata.obs["leiden"].astype(int))


def join_mixed(clusters: np.ndarray, spaces: Sequence[tuple[np.ndarray, float]], *, seed: int) -> np.ndarray:
    """Join clusters whose cells have each other for neighbours in any of some spaces, the most mixed first.

    Parameters
    ----------
    clusters
        Number of the cluster of each cell, (n,).
    spaces
        Coordinates of the cells, (n, d), and the `mixing` in them from which two clusters are one.
    seed
        Seed of the samples that stand for large clusters.
    """
    rng = np.random.default_rng(seed32(seed))
    result = clusters.copy()

    def mixed(a: int, b: int) -> float:
        """Return the largest mixing of two clusters over the spaces; they are joined from 1."""
        values = []
        for points, threshold in spaces:
            values.append(mixing(points[result == a], points[result == b], rng) / threshold)
        return max(values)

    # Every pair of clusters, once.
    names = np.unique(result).tolist()
    pairs = {}
    for a, b in combinations(names, 2):
        pairs[a, b] = mixed(a, b)
    while pairs:
        # Join the pair that is most mixed; of equals the one with the highest numbers.
        (into, gone), most = max(pairs.items(), key=lambda item: (item[1], item[0]))
        if most < 1:
            break
        result[result == gone] = into
        names.remove(gone)
        # Pairs with the larger cluster are compared anew.
        pairs = {pair: value for pair, value in pairs.items() if not {into, gone} & set(pair)}
        for other in names:
            if other != into:
                first, second = sorted((into, other))
                pairs[first, second] = mixed(first, second)
    return result


def mixing(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> float:
    """Return how much two clusters lie in one another: 0 apart, 1 as if drawn from one; the lesser of both sides.

    It is the share of a cell's neighbours that are of the other cluster, over the share expected by chance.

    Parameters
    ----------
    a, b
        Coordinates of the cells of both, (cells, d).
    rng
        Draws the samples that stand for large clusters.
    """
    from sklearn.neighbors import NearestNeighbors

    # The neighbours of each cell among those of both clusters; a small cluster cannot fill more than its half.
    a, b = _sample(a, rng), _sample(b, rng)
    n = len(a) + len(b)
    k = max(1, min(NEAREST, min(len(a), len(b)) // 2))
    both = np.concatenate([a, b])
    index: Any = NearestNeighbors(n_neighbors=min(k + 1, n)).fit(both)
    in_b = index.kneighbors(both, return_distance=False)[:, 1:] >= len(a)  # the first is the cell itself
    # The share of the other cluster among them, over that among all other cells.
    from_a = in_b[: len(a)].mean() / (len(b) / (n - 1))
    from_b = (~in_b[len(a) :]).mean() / (len(a) / (n - 1))
    return float(min(from_a, from_b))


SAMPLE = 400  # cells that stand for a larger group where all distances are taken


def _sample(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(points) <= SAMPLE:
        return points
    return np.asarray(points[np.sort(rng.choice(len(points), SAMPLE, replace=False))])


def renumbered(clusters: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Return the clusters under their places in an order, from ``"1"``; those set aside stay so."""
    places = {name: str(k) for k, name in enumerate(order, start=1)}
    return np.array([places.get(name, ASIDE) for name in clusters.tolist()], dtype=object)


LEAST_KNOWN = 15  # known cells of a file below which there is nothing to compare a cluster with
APART_FROM = 0.5  # a cluster stands apart if at least half of its cells' neighbours are its own


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far a cluster stands from the known cells of its file.

    Attributes
    ----------
    silhouette
        -1 to 1: mean over its cells of how much nearer they are to each other than to the nearest known type.
    own_share
        Share of its cells' nearest neighbours, among its own and the known cells, that are its own.

    Both are ``None`` where the file has too few known cells to compare with.
    """

    silhouette: float | None
    own_share: float | None

    @property
    def comparable(self) -> bool:
        """Whether there was anything to compare with."""
        return self.silhouette is not None

    @property
    def apart(self) -> bool:
        """Whether it looks like more than the edge of a known type."""
        if self.own_share is None or self.silhouette is None:
            return False
        return self.own_share >= APART_FROM and self.silhouette > 0


def separation(own: np.ndarray, known: np.ndarray, known_types: np.ndarray, seed: int) -> Separation:
    """Compare the cells of a cluster with the known cells of their file.

    Parameters
    ----------
    own, known
        Principal components of both, (cells of the cluster, d) and (m, d).
    known_types
        Type of each known cell, (m,).
    seed
        Seed of the samples that stand for large groups.
    """
    if len(known) < LEAST_KNOWN:
        return Separation(silhouette=None, own_share=None)
    rng = np.random.default_rng(seed32(seed))
    sample = _sample(own, rng)
    # Mean distance to the cells of the cluster, the cell itself left out.
    inside = _mean_distance(sample, _sample(own, rng)) * len(own) / max(len(own) - 1, 1)
    # Mean distance to the known type that is nearest to the cell.
    distances = []
    for name in sorted(set(known_types.tolist())):
        distances.append(_mean_distance(sample, _sample(known[known_types == name], rng)))
    outside = np.min(distances, axis=0)
    silhouette = (outside - inside) / np.maximum(np.maximum(outside, inside), 1e-12)
    return Separation(silhouette=float(silhouette.mean()), own_share=_own_share(sample, own, known))


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b).mean(axis=1))


def _own_share(sample: np.ndarray, own: np.ndarray, known: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    k = min(NEAREST, len(own) // 2)  # a small cluster cannot fill more
    if k < 1:
        return 0.0
    index: Any = NearestNeighbors(n_neighbors=k + 1).fit(np.concatenate([own, known]))
    neighbours = index.kneighbors(sample, return_distance=False)[:, 1:]  # the first is the cell itself
    return float((neighbours < len(own)).mean())


SIGNIFICANT = 0.05  # adjusted p-value of a marker gene


def find_markers(
    expression: sp.csr_matrix, groups: np.ndarray, genes: Sequence[str], *, reference: str, top: int
) -> dict[str, tuple[MarkerGene, ...]]:
    """Return the genes that each group has significantly more of, best first.

    Parameters
    ----------
    expression
        As for `components`, of all groups' cells, (cells, G).
    groups
        Name of the group of each cell, (cells,).
    genes
        Names of the G genes.
    reference
        Group to compare with, or ``"rest"`` for all other cells.
    top
        Most genes for a group.
    """
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    # Groups of a single cell have no variance to test with.
    names, counts = np.unique(groups.astype(str), return_counts=True)
    testable = names[counts > 1].tolist()
    tested = [name for name in testable if name != reference]
    if not tested or len(names) < 2 or reference not in {"rest", *testable}:
        return {}
    obs = pd.DataFrame({"group": pd.Categorical(groups.astype(str))}, index=np.arange(len(groups)).astype(str))
    adata = ad.AnnData(X=expression, obs=obs, var=pd.DataFrame(index=list(genes)), uns={"log1p": {"base": None}})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        sc.tl.rank_genes_groups(
            adata, "group", groups=tested, reference=reference, method="t-test_overestim_var", pts=True
        )
    markers = {}
    for name in tested:
        markers[name] = _significant(adata, name, reference, top)
    return markers


def _significant(adata: "ad.AnnData", group: str, reference: str, top: int) -> tuple[MarkerGene, ...]:
    """Return the first genes of scanpy's ranking that are significant and higher in the group."""
    ranking = adata.uns["rank_genes_groups"]
    shares = ranking["pts"][group]
    others = ranking["pts_rest"][group] if reference == "rest" else ranking["pts"][reference]
    names, folds = ranking["names"][group].tolist(), ranking["logfoldchanges"][group].tolist()
    p_values = ranking["pvals_adj"][group].tolist()
    markers: list[MarkerGene] = []
    for gene, fold, p_value in zip(names, folds, p_values, strict=True):
        if len(markers) == top:
            break
        if p_value < SIGNIFICANT and fold > 0:
            markers.append(
                MarkerGene(
                    gene=str(gene),
                    fold=float(fold),
                    share=float(shares[gene]),
                    share_others=float(others[gene]),
                    p_value=float(p_value),
                )
            )
    return tuple(markers)
