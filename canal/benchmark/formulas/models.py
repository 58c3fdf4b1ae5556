"""SciBet: genes by the E-test, then a multinomial model (Li et al., Nature Communications 2020, 11:1818).

Shapes: N cells, G genes, C types.

SCINA: types from marker genes by expectation maximisation (Zhang et al., Genes 2019, 10:531).

A marker of a type is normal around a high mean in the type's cells and around a low mean in all others, with one
variance; a cell may also be of no type, with all its markers low. No labelled cell is used.

Shapes: N cells, M markers, R types.

Cell-ID: gene signatures by multiple correspondence analysis (Cortal et al., Nature Biotechnology 2021, 39:1095).

Cells and genes are placed in one space; the genes nearest a cell, or the centre of a type, are its signature. A cell
is of the type whose signature it shares most, by a hypergeometric test.

Shapes: N cells, G genes, D dimensions, C types, S genes of a signature.
"""

import numpy as np
import scipy.linalg
import scipy.sparse as sp


def entropy_scores(means: np.ndarray) -> np.ndarray:
    """Return how much each gene tells types apart: log2 of the mean over types, less the mean of log2.

    Parameters
    ----------
    means
        Mean linear expression of each type, (C, G).
    """
    return np.asarray(np.log2(means.mean(axis=0) + 1) - np.log2(means + 1).mean(axis=0))


def log_probabilities(sums: np.ndarray) -> np.ndarray:
    """Return log2 of the probability of each gene in each type, one pseudo-count a gene, (C, G).

    Parameters
    ----------
    sums
        Sum over the cells of a type of log2(expression + 1), (C, G).
    """
    return np.asarray(np.log2(sums + 1) - np.log2(sums.sum(axis=1, keepdims=True) + sums.shape[1]))


def learn(
    log2_expression: sp.csr_matrix, labels: np.ndarray, k: int = 1000
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Learn from cells.

    Parameters
    ----------
    log2_expression
        log2(expression + 1), CSR (N, G).
    labels
        Types, (N,).
    k
        Genes to choose.

    Returns
    -------
    The types (C,), columns of the chosen genes (k,), and log2 probabilities (C, k).
    """
    types = sorted(set(labels.tolist()))
    linear = log2_expression.copy()
    linear.data = np.exp2(linear.data) - 1
    of_type = [np.flatnonzero(labels == name) for name in types]
    means = np.vstack([np.asarray(linear[rows].mean(axis=0)) for rows in of_type])
    columns = np.argsort(-entropy_scores(means), kind="stable")[:k]
    sums = np.vstack([np.asarray(log2_expression[rows][:, columns].sum(axis=0)) for rows in of_type])
    return types, columns, log_probabilities(sums)


def log_likelihoods(log2_expression: sp.csr_matrix, log_probability: np.ndarray) -> np.ndarray:
    """Return the log2 likelihood of each type, (N, C), from cells (N, k) and `learn`'s probabilities (C, k)."""
    return np.asarray(log2_expression @ log_probability.T)


UNKNOWN = "unknown"
HIGH, LOW = 0.7, 0.3  # quantiles to start from
FEWEST_VARIANCE = 1e-4


def assign(
    values: np.ndarray, signature: np.ndarray, *, iterations: int = 100, stable: int = 10, rate: float = 0.99
) -> np.ndarray:
    """Return the probability of each type, and of none as the last, (N, R + 1).

    Parameters
    ----------
    values
        Log expression of the markers, (N, M).
    signature
        The type each marker belongs to, int (M,), each of 0 ... R - 1 at least once.
    iterations
        The most steps.
    stable, rate
        Ends where this share of the cells kept their type over this many steps.
    """
    types = int(signature.max()) + 1
    high, low = np.quantile(values, HIGH, axis=0), np.quantile(values, LOW, axis=0)
    variance = np.maximum(values.var(axis=0), FEWEST_VARIANCE)
    share = np.full(types + 1, 1.0 / (types + 1))
    said: list[np.ndarray] = []
    for _ in range(iterations):
        posterior = _posterior(values, signature, high, low, variance, share)
        share = posterior.mean(axis=0)
        high, low, variance = _updated(values, signature, posterior, high, low)
        said.append(posterior.argmax(axis=1))
        if len(said) > stable and all((said[-1] == s).mean() >= rate for s in said[-stable - 1 : -1]):
            break
    return _posterior(values, signature, high, low, variance, share)


def _posterior(
    values: np.ndarray,
    signature: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    variance: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    # The likelihood of a type over that of none: only its own markers differ.
    gain = ((values - low) ** 2 - (values - high) ** 2) / (2 * variance)
    score = np.zeros((len(values), len(share)))
    for r in range(len(share) - 1):
        score[:, r] = gain[:, signature == r].sum(axis=1)
    score += np.log(np.maximum(share, 1e-12))
    score -= score.max(axis=1, keepdims=True)
    weight = np.exp(score)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _updated(
    values: np.ndarray, signature: np.ndarray, posterior: np.ndarray, high: np.ndarray, low: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside = posterior[:, signature]  # (N, M): probability that the cell is of the marker's type
    outside = 1 - inside
    mass, rest = inside.sum(axis=0), outside.sum(axis=0)
    new_high = np.where(mass > 1e-9, (inside * values).sum(axis=0) / np.maximum(mass, 1e-9), high)
    new_low = np.where(rest > 1e-9, (outside * values).sum(axis=0) / np.maximum(rest, 1e-9), low)
    # A marker that is lower in its type than elsewhere marks nothing: one mean for all.
    swapped = new_high < new_low
    mean = values.mean(axis=0)
    new_high, new_low = np.where(swapped, mean, new_high), np.where(swapped, mean, new_low)
    spread = inside * (values - new_high) ** 2 + outside * (values - new_low) ** 2
    return new_high, new_low, np.maximum(spread.mean(axis=0), FEWEST_VARIANCE)


UNASSIGNED = "unassigned"
DIMENSIONS, SIGNATURE = 50, 200
LEAST_EVIDENCE = 2.0  # -log10 of the adjusted p-value
FEWEST = 10  # genes of a signature that the other file must have


def correspondence(values: np.ndarray, dimensions: int = DIMENSIONS) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of cells (N, D) and genes (G, D).

    Every gene counts twice, as its expression scaled to 0 ... 1 and as one less that; the table is divided by the
    roots of its margins, and its leading right singular vectors but the first are the cells' places.

    Parameters
    ----------
    values
        Log expression, (N, G); every gene must vary.
    dimensions
        D; fewer where there are fewer cells.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = ((values - low) / (high - low)).T
    fuzzy = np.concatenate([scaled, 1 - scaled])
    total, rows = fuzzy.sum(), fuzzy.sum(axis=1)
    table = fuzzy / np.sqrt(fuzzy.sum(axis=0)) / np.sqrt(rows)[:, None]
    n = table.shape[1]
    kept = min(dimensions, n - 1)
    vectors = scipy.linalg.eigh(table.T @ table, subset_by_index=(n - 1 - kept, n - 2))[1][:, ::-1]
    genes = (table @ vectors) / np.sqrt(rows / total)[:, None]
    return np.sqrt(n) * vectors, genes[: len(scaled)]


def nearest_genes(places: np.ndarray, genes: np.ndarray, size: int = SIGNATURE) -> np.ndarray:
    """Return the genes nearest each place, int (places, S), from places (., D) and genes (G, D)."""
    distance = (genes**2).sum(axis=1)[None] - 2 * places @ genes.T
    return np.argsort(distance, axis=1, kind="stable")[:, :size]


def evidence(shared: np.ndarray, genes: int, drawn: int, sizes: np.ndarray) -> np.ndarray:
    """Return -log10 of the adjusted p-values (N, C) of sharing so many genes or more.

    Parameters
    ----------
    shared
        Genes that cell and type share, int (N, C).
    genes
        Genes in all.
    drawn
        Genes of a cell's signature.
    sizes
        Genes of each type's signature, (C,).
    """
    from scipy.stats import hypergeom  # a second to import: only for those who need it

    p = hypergeom.sf(shared - 1, genes, sizes[None], drawn)
    return np.asarray(-np.log10(np.maximum(_benjamini_hochberg(p), 1e-300)))


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjust the p-values of each cell over the types, (N, C)."""
    n = p.shape[1]
    order = np.argsort(p, axis=1)
    scaled = np.take_along_axis(p, order, axis=1) * n / np.arange(1, n + 1)
    least = np.minimum.accumulate(scaled[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(least, 1.0), axis=1)
    return adjusted
