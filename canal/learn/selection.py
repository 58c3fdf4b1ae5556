"""Which cells of one type stay in the example bank: one function a policy.

Every policy takes the representations of the candidates, of shape (n, d), and how many to keep, and returns positions
in order of choice. Each is deterministic given its generator.
"""

from collections.abc import Callable

import numpy as np

Policy = Callable[[np.ndarray, int, np.ndarray, np.random.Generator], np.ndarray]


def random_cells(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep cells drawn at random; ``row`` is not used."""
    del row
    return rng.permutation(len(rep))[:k]


def herding(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep the cells whose running mean stays nearest the mean of all (Rebuffi et al., iCaRL, algorithm 4)."""
    del row, rng
    unit = _unit(rep)
    mean = unit.mean(axis=0)
    chosen: list[int] = []
    total = np.zeros_like(mean)
    free = np.ones(len(unit), dtype=bool)
    for step in range(1, min(k, len(unit)) + 1):
        gap = ((mean - (total + unit) / step) ** 2).sum(axis=1)
        gap[~free] = np.inf
        best = int(gap.argmin())
        chosen.append(best)
        free[best] = False
        total = total + unit[best]
    return np.array(chosen, dtype=np.int64)


def coverage(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep cells that cover the type: each next one is the farthest from those kept (greedy k-centre).

    The first is the cell nearest the mean, so that one cell alone is a fair picture of its type.
    """
    del row, rng
    unit = _unit(rep)
    first = int(((unit - unit.mean(axis=0)) ** 2).sum(axis=1).argmin()) if len(unit) else 0
    chosen = [first] if k and len(unit) else []
    gap = ((unit - unit[first]) ** 2).sum(axis=1) if len(unit) else np.zeros(0)
    while len(chosen) < min(k, len(unit)):
        gap[chosen] = -1.0
        nxt = int(gap.argmax())
        chosen.append(nxt)
        gap = np.minimum(gap, ((unit - unit[nxt]) ** 2).sum(axis=1))
    return np.array(chosen, dtype=np.int64)


def prototype(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep the cells with the largest dot product with the type's own classifier row (CANAL, example bank)."""
    del rng
    return np.argsort(-(rep @ row), kind="stable")[:k]


POLICIES: dict[str, Policy] = {
    "random": random_cells,
    "herding": herding,
    "coverage": coverage,
    "prototype": prototype,
}


def _unit(rep: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rep, axis=1, keepdims=True)
    unit: np.ndarray = rep / np.maximum(length, 1e-12)
    return unit
