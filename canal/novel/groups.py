"""Groups among novel cells: pure functions of arrays, nothing of a model in them.

Shapes: n novel cells, G genes, d principal components.

What speaks for a cluster of novel cells: pure functions of arrays, nothing of a model in them.

Shapes: m known cells of the same file, G genes, d principal components.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.threads import same_threads_after
from canal.novel.report import MarkerGene
from canal.stages.clusters import NEAREST, principal_components, seed32

if TYPE_CHECKING:
    import anndata as ad


ASIDE = "-"  # the cluster of cells that belong to none
FEW = 20  # novel cells that are too few to be split
MIXED = 0.3  # of `mixing`, from which two clusters are one at resolution 1
MIXED_FOR_MODEL = 0.5  # the same in the model's representation, where types that it does not know lie nearer
COMPARED = 400  # cells of a group that distances are taken to at most


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

    points = principal_components(expression, seed)
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


NEW_SHARE = 0.5  # share of neighbours that are not known cells from which a cluster stands apart
SIGNIFICANT = 0.05
KNOWN = "known"  # the group of the known cells


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The novel cells (first) and known cells of a file that are looked at together.

    `rows` are their positions in the file, `groups` cluster or `KNOWN`, `best` the best known type, all (cells,);
    `expression` (cells, genes); `points` their principal components.
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
        """Which of them are known cells."""
        found: np.ndarray = self.groups == KNOWN
        return found

    @property
    def clusters(self) -> list[str]:
        """Names of the clusters, in order."""
        return sorted(set(self.groups.tolist()) - {KNOWN, ASIDE}, key=int)


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far a cluster stands from the known cells of its file.

    Attributes
    ----------
    silhouette
        -1 to 1: mean over its cells of how much nearer they are to each other than to the nearest known type.
    own_share
        Share of its cells' nearest neighbours, among its own and the known cells, that are its own.
    """

    silhouette: float
    own_share: float

    @property
    def apart(self) -> bool:
        """Whether it looks like more than the edge of a known type."""
        return self.own_share >= NEW_SHARE and self.silhouette > 0


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
    if not len(known):
        return Separation(silhouette=1.0, own_share=1.0)
    rng = np.random.default_rng(seed32(seed))
    asked = some(own, rng)
    inside = _mean_distance(asked, some(own, rng)) * len(own) / max(len(own) - 1, 1)
    groups = [known[known_types == name] for name in sorted(set(known_types.tolist()))]
    outside = np.min([_mean_distance(asked, some(group, rng)) for group in groups], axis=0)
    silhouette = (outside - inside) / np.maximum(np.maximum(outside, inside), 1e-12)
    return Separation(silhouette=float(silhouette.mean()), own_share=_own_share(asked, own, known))


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

    names, counts = np.unique(groups.astype(str), return_counts=True)
    able = [str(name) for name, count in zip(names, counts, strict=True) if count > 1]
    tested = [name for name in able if name != reference]
    if not tested or len(names) < 2 or reference not in {"rest", *able}:
        return {}
    obs = pd.DataFrame({"group": pd.Categorical(groups.astype(str))}, index=np.arange(len(groups)).astype(str))
    adata = ad.AnnData(X=expression, obs=obs, var=pd.DataFrame(index=list(genes)), uns={"log1p": {"base": None}})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        sc.tl.rank_genes_groups(
            adata, "group", groups=tested, reference=reference, method="t-test_overestim_var", pts=True
        )
        return {name: _markers(adata, name, reference, top) for name in tested}


def _markers(adata: "ad.AnnData", group: str, reference: str, top: int) -> tuple[MarkerGene, ...]:
    found = adata.uns["rank_genes_groups"]
    shares = found["pts"][group]
    others = found["pts_rest"][group] if reference == "rest" else found["pts"][reference]
    columns = ("names", "logfoldchanges", "pvals_adj")
    rows = zip(*(found[column][group].tolist() for column in columns), strict=True)
    good = ((gene, fold, p) for gene, fold, p in rows if p < SIGNIFICANT and fold > 0)
    return tuple(
        MarkerGene(gene=str(gene), fold=float(fold), share=float(shares[gene]), share_others=float(others[gene]),
               p_value=float(p))
        for (gene, fold, p), _ in zip(good, range(top), strict=False)
    )  # fmt: skip


def _own_share(asked: np.ndarray, own: np.ndarray, known: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    k = min(NEAREST, len(own) // 2)  # a small cluster cannot fill more
    if k < 1:
        return 0.0
    index: Any = NearestNeighbors(n_neighbors=k + 1).fit(np.concatenate([own, known]))
    found = index.kneighbors(asked, return_distance=False)[:, 1:]  # the first is the cell itself
    return float((found < len(own)).mean())


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    distance: np.ndarray = cdist(a, b).mean(axis=1)
    return distance
