"""Rows of length 1, whose products are cosines.

scmap: projection on medians of types, or on cells (Kiselev, Yiu and Hemberg, Nature Methods 2018, 15:359).

The search among cells is exact here; scmap's own is an approximation of it by product quantisation.

Shapes: N cells, G genes, F features, C types.

Seurat's label transfer: anchors between a reference and a query vote (Stuart et al., Cell 2019, 177:1888, methods).

Reference and query are placed in the principal components of the reference. Pairs of mutual nearest neighbours are the
anchors; those that are far apart in the genes themselves are left out, and each is scored by how many neighbours its
two cells share. The anchors near a query cell vote for their reference cells' types. Numbers are the package's
defaults. Neighbours are exact.

Shapes: R reference cells, Q query cells, F genes, D components, A anchors, C types.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


def unit_rows(a: np.ndarray) -> np.ndarray:
    """Return the rows divided by their length, float64 (N, F); a row of zeros stays one."""
    length = np.linalg.norm(a, axis=1, keepdims=True)
    return np.asarray(np.divide(a, length, out=np.zeros_like(a, dtype=np.float64), where=length > 0))


UNASSIGNED = "unassigned"
FEATURES = 500
CLUSTER_THRESHOLD, CELL_THRESHOLD, NEIGHBOURS = 0.7, 0.5, 3


def features(log2_expression: sp.csr_matrix, n: int = FEATURES) -> np.ndarray:
    """Return the columns of the n genes with more zeros than a line through log2 dropout and mean expression says.

    Parameters
    ----------
    log2_expression
        log2(expression + 1), CSR (N, G).
    n
        Features to choose.
    """
    cells = log2_expression.shape[0]
    dropout = 100 * (1 - np.bincount(log2_expression.indices, minlength=log2_expression.shape[1]) / cells)
    used = np.flatnonzero((dropout > 0) & (dropout < 100))
    mean = np.asarray(log2_expression.mean(axis=0)).ravel()[used]
    log_dropout = np.log2(dropout[used])
    slope, intercept = np.polyfit(mean, log_dropout, 1)
    residual = log_dropout - (intercept + slope * mean)
    return np.sort(used[np.argsort(-residual, kind="stable")[:n]])


def medians(values: np.ndarray, labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return types and their median expression (C, F); a type whose medians are all zero is left out."""
    names = sorted(set(labels.tolist()))
    table = np.vstack([np.median(values[labels == name], axis=0) for name in names])
    kept = table.sum(axis=1) > 0
    return [n for n, k in zip(names, kept, strict=True) if k], table[kept]


def project_on_clusters(
    values: np.ndarray, types: list[str], index: np.ndarray, threshold: float = CLUSTER_THRESHOLD
) -> tuple[np.ndarray, np.ndarray]:
    """Return the type of each cell and its similarity; unassigned unless two of three measures agree above a threshold.

    Parameters
    ----------
    values, index
        Cells (N, F) and medians (C, F) on the same features.
    types
        Of the medians.
    threshold
        Least similarity.
    """
    measures = [_cosine(values, index), _correlation(values, index), _correlation(_ranks(values), _ranks(index))]
    best = np.stack([m.argmax(axis=1) for m in measures], axis=1)
    top = np.stack([m.max(axis=1) for m in measures], axis=1)
    labels = np.full(len(values), UNASSIGNED, dtype=object)
    similarity = np.full(len(values), np.nan)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        agree = best[:, a] == best[:, b]
        labels[agree] = np.array(types, dtype=object)[best[agree, a]]
    for measure in range(3):
        of_label = np.array(types, dtype=object)[best[:, measure]] == labels
        similarity = np.where(of_label, np.fmax(similarity, top[:, measure]), similarity)
    labels[~(similarity >= threshold)] = UNASSIGNED  # also where no similarity is defined
    return labels, similarity


def project_on_cells(
    values: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    w: int = NEIGHBOURS,
    threshold: float = CELL_THRESHOLD,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the type of each cell and its similarity; unassigned unless the w nearest agree above a threshold.

    Parameters
    ----------
    values, reference
        Cells (N, F) and reference cells (M, F) on the same features.
    labels
        Types of the reference cells, (M,).
    w, threshold
        Nearest cells that must agree, and least similarity of the nearest.
    """
    similarity = _cosine(values, reference)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :w]
    found = labels.astype(object)[nearest]
    best = np.take_along_axis(similarity, nearest[:, :1], axis=1).ravel()
    agree = (found == found[:, :1]).all(axis=1) & (best >= threshold)
    return np.where(agree, found[:, 0], UNASSIGNED), best


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(unit_rows(a) @ unit_rows(b).T)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _cosine(a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True))


def _ranks(a: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # a second to import: only for those who need it

    return np.asarray(rankdata(a, axis=1))


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
