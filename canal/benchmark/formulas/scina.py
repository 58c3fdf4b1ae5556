"""SCINA: types from marker genes by expectation maximisation (Zhang et al., Genes 2019, 10:531).

A marker of a type is normal around a high mean in the type's cells and around a low mean in all others, with one
variance; a cell may also be of no type, with all its markers low. No labelled cell is used.

Shapes: N cells, M markers, R types.
"""

import numpy as np

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
