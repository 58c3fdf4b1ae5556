"""What speaks for a cluster of novel cells: pure functions of arrays, nothing of a model in them.

Shapes: m known cells of the same file, G genes, d principal components.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.report.novel_report import MarkerGene
from canal.stages.novel_clusters import ASIDE, NEAREST, seed32, some

if TYPE_CHECKING:
    import anndata as ad

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
