"""scmap: projection on medians of types, or on cells (Kiselev, Yiu and Hemberg, Nature Methods 2018, 15:359).

The search among cells is exact here; scmap's own is an approximation of it by product quantisation.

Shapes: N cells, G genes, F features, C types.
"""

import numpy as np
import scipy.sparse as sp

from canal.benchmark.formulas.angles import unit_rows

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
