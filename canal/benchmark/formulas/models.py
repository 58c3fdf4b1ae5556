"""Published models of cell types that no Python package offers: SciBet, SCINA and Cell-ID.

SciBet (Li et al., Nature Communications 2020, 11:1818) chooses genes by the E-test and fits a multinomial model.

SCINA (Zhang et al., Genes 2019, 10:531) fits types to marker genes by expectation maximisation. A marker of a type is
normal around a high mean in the cells of the type and around a low mean in all others, with one variance; a cell may
also be of no type, with all its markers low. No labelled cell is used.

Cell-ID (Cortal et al., Nature Biotechnology 2021, 39:1095) embeds cells and genes in one space by multiple
correspondence analysis; the genes nearest a cell, or the centroid of a type, are its signature. A cell is of the type
whose signature it shares most, by a hypergeometric test.

Shapes: N cells, G genes, C types, M marker genes, D dimensions, S genes of a signature, K chosen genes.
"""

import numpy as np
import scipy.linalg
import scipy.sparse as sp

# SciBet.

CHOSEN_GENES = 1000  # K of the paper


def fit_scibet(log2_expression: sp.csr_matrix, labels: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Choose genes by the E-test and fit the multinomial model.

    Parameters
    ----------
    log2_expression
        log2(expression + 1), CSR (N, G).
    labels
        Types, (N,).

    Returns
    -------
    The types (C,), columns of the chosen genes (K,), and log2 probabilities (C, K).
    """
    # The E-test is on linear expression, the model on its logarithm.
    linear = log2_expression.copy()
    linear.data = np.exp2(linear.data) - 1
    types = sorted(set(labels.tolist()))
    rows_of_type = [np.flatnonzero(labels == name) for name in types]
    means = np.vstack([np.asarray(linear[rows].mean(axis=0)) for rows in rows_of_type])
    columns = np.argsort(-entropy_scores(means), kind="stable")[:CHOSEN_GENES]
    sums = np.vstack([np.asarray(log2_expression[rows][:, columns].sum(axis=0)) for rows in rows_of_type])
    return types, columns, _log2_probabilities(sums)


def entropy_scores(means: np.ndarray) -> np.ndarray:
    """Return the E-test's score of each gene, (G,): log2 of its mean over types, less the mean of log2.

    Parameters
    ----------
    means
        Mean linear expression of each type, (C, G).
    """
    return np.asarray(np.log2(means.mean(axis=0) + 1) - np.log2(means + 1).mean(axis=0))


def _log2_probabilities(sums: np.ndarray) -> np.ndarray:
    """Return log2 of the probability of each gene in each type, with a pseudo-count of one for each gene, (C, K).

    Parameters
    ----------
    sums
        Sum over the cells of a type of log2(expression + 1), (C, K).
    """
    return np.asarray(np.log2(sums + 1) - np.log2(sums.sum(axis=1, keepdims=True) + sums.shape[1]))


def log2_likelihoods(log2_expression: sp.csr_matrix, log2_probabilities: np.ndarray) -> np.ndarray:
    """Return the log2 likelihood of each type, (N, C), from cells (N, K) and the probabilities (C, K) of SciBet."""
    return np.asarray(log2_expression @ log2_probabilities.T)


# SCINA.

UNKNOWN = "unknown"
HIGH_QUANTILE, LOW_QUANTILE = 0.7, 0.3  # of a marker's expression: where its two means start
LEAST_VARIANCE = 1e-4  # of a marker that is nearly constant
MOST_STEPS = 100  # of expectation maximisation
STABLE_SHARE, STABLE_STEPS = 0.99, 10  # converged where so many cells kept their type over so many steps


def type_probabilities(values: np.ndarray, type_of_marker: np.ndarray) -> np.ndarray:
    """Return SCINA's probability of each type, and of no type as the last, (N, C + 1).

    Parameters
    ----------
    values
        Log expression of the markers, (N, M).
    type_of_marker
        The type each marker belongs to, int (M,), each of 0 ... C - 1 at least once.
    """
    n_types = int(type_of_marker.max()) + 1
    high = np.quantile(values, HIGH_QUANTILE, axis=0)
    low = np.quantile(values, LOW_QUANTILE, axis=0)
    variance = np.maximum(values.var(axis=0), LEAST_VARIANCE)
    shares = np.full(n_types + 1, 1.0 / (n_types + 1))
    history: list[np.ndarray] = []  # the type of each cell after each step
    for _ in range(MOST_STEPS):
        # Expectation: the probability of each type for each cell.
        posterior = _posterior(values, type_of_marker, high, low, variance, shares)
        # Maximisation: shares of the types, means and variance of the markers.
        shares = posterior.mean(axis=0)
        high, low, variance = _fit_markers(values, posterior[:, type_of_marker], high, low)
        history.append(posterior.argmax(axis=1))
        if _is_stable(history):
            break
    return _posterior(values, type_of_marker, high, low, variance, shares)


def _posterior(
    values: np.ndarray,
    type_of_marker: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    variance: np.ndarray,
    shares: np.ndarray,
) -> np.ndarray:
    """Return the probability of each type and of none, (N, C + 1), given means and variance of the markers."""
    # The likelihood of a type over that of none: only its own markers differ.
    gain = ((values - low) ** 2 - (values - high) ** 2) / (2 * variance)
    score = np.zeros((len(values), len(shares)))
    for r in range(len(shares) - 1):
        score[:, r] = gain[:, type_of_marker == r].sum(axis=1)
    # Bayes' rule, with the largest score subtracted so that no exponential overflows.
    score += np.log(np.maximum(shares, 1e-12))
    score -= score.max(axis=1, keepdims=True)
    weight = np.exp(score)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _fit_markers(
    values: np.ndarray, inside: np.ndarray, high: np.ndarray, low: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return high mean, low mean and variance of each marker, each (M,).

    Parameters
    ----------
    values
        Log expression of the markers, (N, M).
    inside
        Probability that the cell is of the marker's type, (N, M).
    high, low
        Means so far, kept for a marker without any cell inside, or outside, its type.
    """
    outside = 1 - inside
    mass, rest = inside.sum(axis=0), outside.sum(axis=0)
    new_high = np.where(mass > 1e-9, (inside * values).sum(axis=0) / np.maximum(mass, 1e-9), high)
    new_low = np.where(rest > 1e-9, (outside * values).sum(axis=0) / np.maximum(rest, 1e-9), low)
    # A marker that is lower in its type than elsewhere marks nothing: one mean for all.
    swapped = new_high < new_low
    mean = values.mean(axis=0)
    new_high, new_low = np.where(swapped, mean, new_high), np.where(swapped, mean, new_low)
    spread = inside * (values - new_high) ** 2 + outside * (values - new_low) ** 2
    return new_high, new_low, np.maximum(spread.mean(axis=0), LEAST_VARIANCE)


def _is_stable(history: list[np.ndarray]) -> bool:
    """Tell whether nearly all cells have the type they had at each of the last steps."""
    if len(history) <= STABLE_STEPS:
        return False
    newest = history[-1]
    return all((newest == earlier).mean() >= STABLE_SHARE for earlier in history[-STABLE_STEPS - 1 : -1])


# Cell-ID.

UNASSIGNED = "unassigned"
DIMENSIONS, SIGNATURE_SIZE = 50, 200  # the package's defaults
LEAST_EVIDENCE = 2.0  # -log10 of the adjusted p-value
FEWEST_SIGNATURE_GENES = 10  # of a type's signature that the file must measure


def multiple_correspondence(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of cells (N, D) and genes (G, D); D is lower where there are fewer cells.

    Every gene counts twice, as its expression scaled to 0 ... 1 and as one less that; the table is divided by the
    roots of its margins, and its leading right singular vectors but the first are the cells' coordinates.

    Parameters
    ----------
    values
        Log expression, (N, G); every gene must vary.
    """
    # The fuzzy-coded table, (2 G, N), divided by the roots of its margins.
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = ((values - low) / (high - low)).T
    fuzzy = np.concatenate([scaled, 1 - scaled])
    total, row_sums = fuzzy.sum(), fuzzy.sum(axis=1)
    table = fuzzy / np.sqrt(fuzzy.sum(axis=0)) / np.sqrt(row_sums)[:, None]
    # Its right singular vectors are eigenvectors of the product (N, N), in ascending order; the last is trivial.
    n = table.shape[1]
    dimensions = min(DIMENSIONS, n - 1)
    vectors = scipy.linalg.eigh(table.T @ table, subset_by_index=(n - 1 - dimensions, n - 2))[1][:, ::-1]
    genes = (table @ vectors) / np.sqrt(row_sums / total)[:, None]
    return np.sqrt(n) * vectors, genes[: len(scaled)]


def nearest_genes(points: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Return the genes nearest each point, int (points, S), from points (., D) and genes (G, D)."""
    distance = (genes**2).sum(axis=1)[None] - 2 * points @ genes.T  # squared, less what is the same for all genes
    return np.argsort(distance, axis=1, kind="stable")[:, :SIGNATURE_SIZE]


def overlap_evidence(shared: np.ndarray, n_genes: int, drawn: int, sizes: np.ndarray) -> np.ndarray:
    """Return -log10 of the p-values (N, C) of sharing so many genes or more, adjusted over the types of each cell.

    Parameters
    ----------
    shared
        Number of genes that the signatures of cell and type share, int (N, C).
    n_genes
        Genes in all.
    drawn
        Genes of a cell's signature.
    sizes
        Genes of each type's signature, (C,).
    """
    from scipy.stats import false_discovery_control, hypergeom  # a second to import: only for those who need it

    p_values = hypergeom.sf(shared - 1, n_genes, sizes[None], drawn)
    adjusted = false_discovery_control(p_values, axis=1)  # Benjamini and Hochberg
    return np.asarray(-np.log10(np.maximum(adjusted, 1e-300)))
