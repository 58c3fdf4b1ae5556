"""Seurat's label transfer: anchors between a reference and a query vote (Stuart et al., Cell 2019, 177:1888, methods).

Reference and query are placed in the principal components of the reference. Pairs of mutual nearest neighbours are the
anchors; those that are far apart in the genes themselves are left out, and each is scored by how many neighbours its
two cells share. The anchors near a query cell vote for their reference cells' types. Numbers are the package's
defaults. Neighbours are exact.

Shapes: R reference cells, Q query cells, F genes, D components, A anchors, C types.
"""

from dataclasses import dataclass

import numpy as np

from canal.benchmark.formulas.angles import unit_rows

COMPONENTS, CLIP = 30, 10.0
MUTUAL, FILTER, FILTER_GENES, SCORE, WEIGHT = 5, 200, 200, 30, 50
LOW, HIGH = 0.01, 0.90  # quantiles of the scores that become 0 and 1
BANDWIDTH = 2.0  # 2 / sd, with sd = 1


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Cells in the components of the reference.

    Attributes
    ----------
    reference, query
        Coordinates, (R, D) and (Q, D).
    scaled_reference, scaled_query
        Genes scaled by the mean and deviation of the reference, (R, F) and (Q, F).
    loadings
        Components, (D, F).
    """

    reference: np.ndarray
    query: np.ndarray
    scaled_reference: np.ndarray
    scaled_query: np.ndarray
    loadings: np.ndarray


def transfer(reference: np.ndarray, labels: np.ndarray, query: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the types and each query cell's shares of the votes, (Q, C).

    Parameters
    ----------
    reference, query
        Log expression of the same genes, dense (R, F) and (Q, F).
    labels
        Types of the reference cells, (R,).
    """
    cells = placed(reference, query)
    found = anchors(cells.reference, cells.query)
    kept = near_in_genes(found, cells)
    found = kept if len(kept) else found
    weights = vote_weights(cells.query, found, anchor_scores(found, cells.reference, cells.query))
    names, types = np.unique(labels.astype(str), return_inverse=True)
    return names.tolist(), weights @ np.eye(len(names))[types[found[:, 0]]]


def placed(reference: np.ndarray, query: np.ndarray, components: int = COMPONENTS) -> Placed:
    """Return both files in the principal components of the scaled reference."""
    from sklearn.decomposition import PCA

    mean, deviation = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    deviation[deviation == 0] = 1.0
    scaled = [np.minimum((x - mean) / deviation, CLIP) for x in (reference, query)]
    pca = PCA(min(components, min(reference.shape) - 1), svd_solver="covariance_eigh").fit(scaled[0])
    loadings = pca.components_
    return Placed(
        reference=scaled[0] @ loadings.T, query=scaled[1] @ loadings.T, scaled_reference=scaled[0],
        scaled_query=scaled[1], loadings=loadings,
    )  # fmt: skip


def anchors(reference: np.ndarray, query: np.ndarray, k: int = MUTUAL) -> np.ndarray:
    """Return pairs of a reference and a query cell, each among the other's k nearest by angle, int (A, 2)."""
    a, b = unit_rows(reference), unit_rows(query)
    to_query, to_reference = nearest(a, b, k), nearest(b, a, k)
    pairs = [(r, q) for r in range(len(a)) for q in to_query[r].tolist() if r in to_reference[q]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def near_in_genes(pairs: np.ndarray, cells: Placed, k: int = FILTER) -> np.ndarray:
    """Return the anchors whose reference cell is among the k nearest of the query cell in the leading genes."""
    if not len(pairs):
        return pairs
    genes = leading_genes(cells.loadings)
    near = nearest(unit_rows(cells.scaled_query[:, genes]), unit_rows(cells.scaled_reference[:, genes]), k)
    return pairs[[r in near[q] for r, q in pairs.tolist()]]


def leading_genes(loadings: np.ndarray, most: int = FILTER_GENES) -> np.ndarray:
    """Return the genes of the highest absolute loadings, equally many of each component, at most ``most`` in all."""
    order = np.argsort(-np.abs(loadings), axis=1, kind="stable")
    found = np.unique(order[:, :1])
    for each in range(2, loadings.shape[1] + 1):
        more = np.unique(order[:, :each])
        if len(more) > most:
            break
        found = more
    return found


def anchor_scores(pairs: np.ndarray, reference: np.ndarray, query: np.ndarray, k: int = SCORE) -> np.ndarray:
    """Return how many near cells of either file the two cells of an anchor share, scaled to 0 to 1, (A,)."""
    a, b = unit_rows(reference), unit_rows(query)
    of_reference = np.hstack([nearest(a, a, k), len(a) + nearest(a, b, k)])
    of_query = np.hstack([nearest(b, a, k), len(a) + nearest(b, b, k)])
    shared = np.array([len(np.intersect1d(of_reference[r], of_query[q])) for r, q in pairs.tolist()], dtype=np.float64)
    low, high = np.quantile(shared, [LOW, HIGH]) if len(shared) else (0.0, 1.0)
    return np.clip((shared - low) / max(high - low, 1e-12), 0.0, 1.0)


def vote_weights(query: np.ndarray, pairs: np.ndarray, scores: np.ndarray, k: int = WEIGHT) -> np.ndarray:
    """Return the weight of each anchor for each query cell, rows of sum 1 (Q, A); zero without any anchor.

    With distance d to the query cell of an anchor, d_k to that of the k-th nearest and score S::

        D = (1 - d / d_k) S        W = 1 - exp(-D / (2 / sd)^2)
    """
    weights = np.zeros((len(query), len(pairs)))
    if not len(pairs):
        return weights
    places = query[pairs[:, 1]]
    near = nearest(query, places, k)
    distance = np.linalg.norm(query[:, None] - places[near], axis=2)
    close = (1 - distance / np.maximum(distance[:, -1:], 1e-12)) * scores[near]
    votes = 1 - np.exp(-close / BANDWIDTH**2)
    votes[votes.sum(axis=1) <= 0] = 1.0  # no near anchor has a score: they count alike
    np.put_along_axis(weights, near, votes / votes.sum(axis=1, keepdims=True), axis=1)
    return weights


def nearest(cells: np.ndarray, among: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest rows of ``among`` of each cell, nearest first, int (cells, k); all where there are fewer."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(k, len(among)), algorithm="brute").fit(among)
    return np.asarray(index.kneighbors(cells, return_distance=False))
