"""Published projections of cells onto labelled ones that no Python package offers: scmap and Seurat's label transfer.

scmap (Kiselev, Yiu and Hemberg, Nature Methods 2018, 15:359) projects cells on the medians of types, or on cells. The
search among cells is exact here; scmap's own is an approximation of it by product quantisation.

Seurat's label transfer (Stuart et al., Cell 2019, 177:1888, methods) places reference and query in the principal
components of the reference. Pairs of mutual nearest neighbours are the anchors; those that are far apart in the genes
themselves are left out, and each is scored by how many neighbours its two cells share. The anchors near a query cell
vote for the types of their reference cells. Numbers are the package's defaults. Neighbours are exact.

Shapes: N cells, R reference cells, Q query cells, G genes, F features, C types, D components, A anchors, K neighbours.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp

# scmap.

UNASSIGNED = "unassigned"
FEATURES = 500
CLUSTER_THRESHOLD, CELL_THRESHOLD = 0.7, 0.5  # least similarity, of the package
NEAREST_CELLS = 3  # that must agree


def select_features(log2_expression: sp.csr_matrix) -> np.ndarray:
    """Return the columns of the `FEATURES` genes with the most dropout for their mean expression.

    That is, those farthest above a straight line through log2 dropout and mean expression.

    Parameters
    ----------
    log2_expression
        log2(expression + 1), CSR (N, G).
    """
    n_cells, n_genes = log2_expression.shape
    dropout = 100 * (1 - np.bincount(log2_expression.indices, minlength=n_genes) / n_cells)  # percent
    # A gene that no cell or every cell expresses has no place on the line.
    used = np.flatnonzero((dropout > 0) & (dropout < 100))
    mean = np.asarray(log2_expression.mean(axis=0)).ravel()[used]
    log_dropout = np.log2(dropout[used])
    slope, intercept = np.polyfit(mean, log_dropout, 1)
    residual = log_dropout - (intercept + slope * mean)
    return np.sort(used[np.argsort(-residual, kind="stable")[:FEATURES]])


def type_medians(values: np.ndarray, labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return types and their median expression (C, F); a type whose medians are all zero is left out."""
    names, medians = [], []
    for name in sorted(set(labels.tolist())):
        median = np.median(values[labels == name], axis=0)
        if median.sum() > 0:
            names.append(name)
            medians.append(median)
    return names, np.array(medians).reshape(len(names), values.shape[1])


def project_on_clusters(values: np.ndarray, types: list[str], medians: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the type of each cell and its similarity; unassigned unless two of three measures agree above a threshold.

    Parameters
    ----------
    values, medians
        Cells (N, F) and medians (C, F) on the same features.
    types
        Types of the medians.
    """
    measures = (
        _cosine(values, medians),
        _correlation(values, medians),
        _correlation(_ranks(values), _ranks(medians)),
    )
    nearest = np.stack([similarities.argmax(axis=1) for similarities in measures], axis=1)
    highest = np.stack([similarities.max(axis=1) for similarities in measures], axis=1)
    # The type on which two measures agree.
    names = np.array(types, dtype=object)
    labels = np.full(len(values), UNASSIGNED, dtype=object)
    for first, second in combinations(range(3), 2):
        agree = nearest[:, first] == nearest[:, second]
        labels[agree] = names[nearest[agree, first]]
    # Its similarity is the highest of the measures that name it.
    similarity = np.full(len(values), np.nan)
    for measure in range(3):
        names_label = names[nearest[:, measure]] == labels
        similarity = np.where(names_label, np.fmax(similarity, highest[:, measure]), similarity)
    labels[~(similarity >= CLUSTER_THRESHOLD)] = UNASSIGNED  # also where no similarity is defined
    return labels, similarity


def project_on_cells(values: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the type of each cell and its similarity; unassigned unless the nearest cells agree above a threshold.

    Parameters
    ----------
    values, reference
        Cells (N, F) and reference cells (R, F) on the same features.
    labels
        Types of the reference cells, (R,).
    """
    similarity = _cosine(values, reference)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST_CELLS]
    nearest_types = labels.astype(object)[nearest]
    highest = np.take_along_axis(similarity, nearest[:, :1], axis=1).ravel()
    agree = (nearest_types == nearest_types[:, :1]).all(axis=1) & (highest >= CELL_THRESHOLD)
    return np.where(agree, nearest_types[:, 0], UNASSIGNED), highest


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(_unit_length(a) @ _unit_length(b).T)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _cosine(a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True))


def _ranks(a: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # a second to import: only for those who need it

    return np.asarray(rankdata(a, axis=1))


def _unit_length(a: np.ndarray) -> np.ndarray:
    """Return the rows divided by their length, float64 (N, F), so that products are cosines; zeros stay zeros."""
    length = np.linalg.norm(a, axis=1, keepdims=True)
    return np.asarray(np.divide(a, length, out=np.zeros_like(a, dtype=np.float64), where=length > 0))


# Seurat's label transfer; constants are the package's defaults.

COMPONENTS = 30  # D
MOST_SCALED = 10.0  # standard deviations at which scaled expression is cut
ANCHOR_NEIGHBOURS = 5  # among which the cells of an anchor must be mutually
FILTER_NEIGHBOURS, FILTER_GENES = 200, 200  # an anchor's cells must be that near in so many leading genes
SCORE_NEIGHBOURS = 30  # of which those that an anchor's cells share are counted
VOTING_ANCHORS = 50  # nearest to a query cell
LOW_QUANTILE, HIGH_QUANTILE = 0.01, 0.90  # of the scores, which become 0 and 1
BANDWIDTH = 2.0  # 2 / sd, with sd = 1


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Reference and query in the components of the reference.

    Attributes
    ----------
    reference, query
        Coordinates, (R, D) and (Q, D).
    scaled_reference, scaled_query
        Genes scaled by the mean and deviation of the reference, (R, G) and (Q, G).
    loadings
        Components, (D, G).
    """

    reference: np.ndarray
    query: np.ndarray
    scaled_reference: np.ndarray
    scaled_query: np.ndarray
    loadings: np.ndarray


def transfer_labels(reference: np.ndarray, labels: np.ndarray, query: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the types and each query cell's shares of the votes, (Q, C).

    Parameters
    ----------
    reference, query
        Log expression of the same genes, dense (R, G) and (Q, G).
    labels
        Types of the reference cells, (R,).
    """
    embedding = _embed(reference, query)
    anchors = find_anchors(embedding.reference, embedding.query)
    filtered = filter_anchors(anchors, embedding)
    if len(filtered):  # without any, those that are far apart in the genes have to do
        anchors = filtered
    scores = anchor_scores(anchors, embedding.reference, embedding.query)
    weights = vote_weights(embedding.query, anchors, scores)
    names, types = np.unique(labels.astype(str), return_inverse=True)
    return names.tolist(), weights @ np.eye(len(names))[types[anchors[:, 0]]]


def _embed(reference: np.ndarray, query: np.ndarray) -> Embedding:
    """Return both files in the principal components of the scaled reference."""
    from sklearn.decomposition import PCA

    # Both are scaled as the reference is; a gene that is constant there stays zero.
    mean, deviation = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    deviation[deviation == 0] = 1.0
    scaled_reference = np.minimum((reference - mean) / deviation, MOST_SCALED)
    scaled_query = np.minimum((query - mean) / deviation, MOST_SCALED)
    components = min(COMPONENTS, min(reference.shape) - 1)
    loadings = PCA(components, svd_solver="covariance_eigh").fit(scaled_reference).components_
    return Embedding(
        reference=scaled_reference @ loadings.T,
        query=scaled_query @ loadings.T,
        scaled_reference=scaled_reference,
        scaled_query=scaled_query,
        loadings=loadings,
    )


def find_anchors(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return pairs of a reference and a query cell, each among the other's nearest by angle, int (A, 2)."""
    unit_reference, unit_query = _unit_length(reference), _unit_length(query)
    near_reference = _nearest_rows(unit_reference, unit_query, ANCHOR_NEIGHBOURS)
    near_query = _nearest_rows(unit_query, unit_reference, ANCHOR_NEIGHBOURS)
    anchors = []
    for r in range(len(reference)):
        for q in near_reference[r].tolist():
            if r in near_query[q]:
                anchors.append((r, q))
    return np.array(anchors, dtype=np.int64).reshape(-1, 2)


def filter_anchors(anchors: np.ndarray, embedding: Embedding) -> np.ndarray:
    """Return the anchors (A, 2) whose reference cell is among the nearest of the query cell in the leading genes."""
    if not len(anchors):
        return anchors
    genes = leading_genes(embedding.loadings)
    near_query = _nearest_rows(
        _unit_length(embedding.scaled_query[:, genes]),
        _unit_length(embedding.scaled_reference[:, genes]),
        FILTER_NEIGHBOURS,
    )
    return anchors[[r in near_query[q] for r, q in anchors.tolist()]]


def leading_genes(loadings: np.ndarray) -> np.ndarray:
    """Return the genes of the highest absolute loadings, equally many of each component, within `FILTER_GENES`."""
    order = np.argsort(-np.abs(loadings), axis=1, kind="stable")
    genes = np.unique(order[:, :1])
    for per_component in range(2, loadings.shape[1] + 1):
        more = np.unique(order[:, :per_component])
        if len(more) > FILTER_GENES:
            break
        genes = more
    return genes


def anchor_scores(anchors: np.ndarray, reference: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return how many neighbours in both files the two cells of an anchor share, scaled to 0 ... 1, (A,)."""
    a, b = _unit_length(reference), _unit_length(query)
    # Neighbours of every cell in the reference, then in the query, numbered on from the reference.
    near_reference = np.hstack([_nearest_rows(a, a, SCORE_NEIGHBOURS), len(a) + _nearest_rows(a, b, SCORE_NEIGHBOURS)])
    near_query = np.hstack([_nearest_rows(b, a, SCORE_NEIGHBOURS), len(a) + _nearest_rows(b, b, SCORE_NEIGHBOURS)])
    shared = np.zeros(len(anchors))
    for i, (r, q) in enumerate(anchors.tolist()):
        shared[i] = len(np.intersect1d(near_reference[r], near_query[q]))
    low, high = np.quantile(shared, [LOW_QUANTILE, HIGH_QUANTILE]) if len(shared) else (0.0, 1.0)
    return np.clip((shared - low) / max(high - low, 1e-12), 0.0, 1.0)


def vote_weights(query: np.ndarray, anchors: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the weight of each anchor for each query cell, rows of sum 1 (Q, A); zero without any anchor.

    With distance d to the query cell of an anchor, d_K to that of the K-th nearest and score S::

        D = (1 - d / d_K) S        W = 1 - exp(-D / (2 / sd)^2)
    """
    weights = np.zeros((len(query), len(anchors)))
    if not len(anchors):
        return weights
    anchor_points = query[anchors[:, 1]]
    nearest = _nearest_rows(query, anchor_points, VOTING_ANCHORS)
    distance = np.linalg.norm(query[:, None] - anchor_points[nearest], axis=2)
    closeness = (1 - distance / np.maximum(distance[:, -1:], 1e-12)) * scores[nearest]
    votes = 1 - np.exp(-closeness / BANDWIDTH**2)
    votes[votes.sum(axis=1) <= 0] = 1.0  # no near anchor has a score: they count alike
    np.put_along_axis(weights, nearest, votes / votes.sum(axis=1, keepdims=True), axis=1)
    return weights


def _nearest_rows(points: np.ndarray, among: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest rows of ``among`` to each point, nearest first, int (points, K); all if there are fewer."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(k, len(among)), algorithm="brute").fit(among)
    return np.asarray(index.kneighbors(points, return_distance=False))
