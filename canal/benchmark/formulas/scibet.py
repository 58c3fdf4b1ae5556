"""SciBet: genes by the E-test, then a multinomial model (Li et al., Nature Communications 2020, 11:1818).

Shapes: N cells, G genes, C types.
"""

import numpy as np
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
