"""Groups among novel cells and the evidence for each: pure functions of arrays, nothing of a model in them.

Shapes: n novel cells, m known cells of the same file, G genes, d principal components.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import anndata as ad

ASIDE = "-"  # the cluster of cells that belong to none
FEW = 20  # novel cells that are too few to be split
HIGHLY_VARIABLE = 2_000
COMPONENTS = 30
NEAREST = 15
COMPARED = 400  # cells of a group that distances are taken to at most
NEW_SHARE = 0.5  # share of neighbours that are not known cells from which a cluster stands apart
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A gene that a cluster has more of than others.

    Attributes
    ----------
    gene
        Its name.
    fold
        Logarithm to base 2 of the ratio of means.
    share, share_others
        Of the cells that have any of it, in the cluster and in those it is compared with.
    p_value
        Adjusted for the number of genes.
    """

    gene: str
    fold: float
    share: float
    share_others: float
    p_value: float


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
        sc.pp.pca(adata, n_comps=min(d, adata.n_vars - 1), random_state=_seed32(seed))
    return np.asarray(adata.obsm["X_pca"], dtype=np.float32)


def cluster_cells(expression: sp.csr_matrix, *, resolution: float, min_size: int, seed: int) -> np.ndarray:
    """Cluster novel cells by Leiden on their own principal components.

    Parameters
    ----------
    expression
        As for `components`, (n, G).
    resolution
        Higher for more clusters.
    min_size
        Clusters below are set aside.
    seed
        Seed of all that is random.

    Returns
    -------
    Clusters ``"1"``, ``"2"``, ... by size, or ``"-"``, of shape (n,).
    """
    n = expression.shape[0]
    raw = np.zeros(n, dtype=np.int64) if n < max(FEW, 2 * min_size) else _leiden(expression, resolution, seed)
    values, inverse, counts = np.unique(raw, return_inverse=True, return_counts=True)
    names = np.full(len(values), ASIDE, dtype=object)
    order = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k] >= min_size]
    for rank, k in enumerate(order, start=1):
        names[k] = str(rank)
    result: np.ndarray = names[inverse]
    return result


def renamed(clusters: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Return the clusters under their places in an order, from ``"1"``; those set aside stay so."""
    places = {name: str(k) for k, name in enumerate(order, start=1)}
    return np.array([places.get(name, ASIDE) for name in clusters.tolist()], dtype=object)


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
    rng = np.random.default_rng(_seed32(seed))
    asked = _some(own, rng)
    inside = _mean_distance(asked, _some(own, rng)) * len(own) / max(len(own) - 1, 1)
    groups = [known[known_types == name] for name in sorted(set(known_types.tolist()))]
    outside = np.min([_mean_distance(asked, _some(group, rng)) for group in groups], axis=0)
    silhouette = (outside - inside) / np.maximum(np.maximum(outside, inside), 1e-12)
    return Separation(silhouette=float(silhouette.mean()), own_share=_own_share(asked, own, known))


def find_markers(
    expression: sp.csr_matrix, groups: np.ndarray, genes: Sequence[str], *, reference: str, top: int
) -> dict[str, tuple[Marker, ...]]:
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


def _markers(adata: "ad.AnnData", group: str, reference: str, top: int) -> tuple[Marker, ...]:
    found = adata.uns["rank_genes_groups"]
    shares = found["pts"][group]
    others = found["pts_rest"][group] if reference == "rest" else found["pts"][reference]
    columns = ("names", "logfoldchanges", "pvals_adj")
    rows = zip(*(found[column][group].tolist() for column in columns), strict=True)
    good = ((gene, fold, p) for gene, fold, p in rows if p < SIGNIFICANT and fold > 0)
    return tuple(
        Marker(gene=str(gene), fold=float(fold), share=float(shares[gene]), share_others=float(others[gene]),
               p_value=float(p))
        for (gene, fold, p), _ in zip(good, range(top), strict=False)
    )  # fmt: skip


def _leiden(expression: sp.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    import anndata as ad
    import scanpy as sc

    points = components(expression, seed)
    adata = ad.AnnData(obsm={"X_pca": points}, shape=(len(points), 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy's notices on its own future defaults
        sc.pp.neighbors(adata, n_neighbors=NEAREST, use_rep="X_pca", random_state=_seed32(seed))
        sc.tl.leiden(
            adata, resolution=resolution, random_state=_seed32(seed), flavor="igraph", n_iterations=2, directed=False
        )
    return np.asarray(adata.obs["leiden"].astype(int))


def _own_share(asked: np.ndarray, own: np.ndarray, known: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    k = min(NEAREST, len(own) - 1)
    if k < 1:
        return 0.0
    index: Any = NearestNeighbors(n_neighbors=k + 1).fit(np.concatenate([own, known]))
    found = index.kneighbors(asked, return_distance=False)[:, 1:]  # the first is the cell itself
    return float((found < len(own)).mean())


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    distance: np.ndarray = cdist(a, b).mean(axis=1)
    return distance


def _some(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(points) <= COMPARED:
        return points
    chosen: np.ndarray = points[np.sort(rng.choice(len(points), COMPARED, replace=False))]
    return chosen


def _seed32(seed: int) -> int:
    return seed % 2**32
