"""Attacks on an export: they tell who was among the cells that the statistics of a type are of.

Each attack scores cells; members should score higher. The attacker has the whole profile of a cell, and cells of the
same type and data set that are in no export to compare with: the strongest that one has to expect.

Shapes: n cells, g genes, k directions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.stats import norm

from canal.figures import auroc
from canal.model.memory import TypeStatistics, type_statistics

LIKELIHOOD, DIRECTIONS, DIFFERENCE = "likelihood", "directions", "difference"
ATTACKS = (LIKELIHOOD, DIRECTIONS, DIFFERENCE)
ADDED = 10  # cells that came between two exports of a site, whose difference is attacked
LEAST_VARIANCE = 1e-9  # of a gene, where no reference cell expresses it


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the attacker knows of the type from cells that are in no export.

    Attributes
    ----------
    mean, variance
        Of each gene, (g,).
    """

    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, profiles: np.ndarray) -> "Reference":
        """Return the mean and variance of profiles (n, g)."""
        return cls(mean=profiles.mean(axis=0), variance=profiles.var(axis=0) + LEAST_VARIANCE)


def likelihood(profiles: np.ndarray, mean: np.ndarray, reference: Reference) -> np.ndarray:
    """Return how much likelier cells (n, g) are under an exported mean than under the reference, (n,).

    It is the logarithm of the ratio of two Gaussians of one variance by gene, less what is the same for all cells: the
    attack of Homer et al. (2008) on means of many measurements.
    """
    return np.asarray((profiles - reference.mean) @ ((mean - reference.mean) / reference.variance))


def directions(profiles: np.ndarray, statistics: TypeStatistics) -> np.ndarray:
    """Return the share of the spread of each cell (n, g) that lies along the exported directions, (n,)."""
    centred = profiles - statistics.mean
    factors = statistics.factors.astype(np.float64)
    basis = factors / np.maximum(np.linalg.norm(factors, axis=1, keepdims=True), 1e-12)
    return np.asarray(((centred @ basis.T) ** 2).sum(axis=1) / np.maximum((centred**2).sum(axis=1), 1e-12))


@dataclass(frozen=True, kw_only=True)
class Split:
    """One way to part the cells of a type, rows of its profiles.

    Attributes
    ----------
    members
        Cells that the statistics are of.
    others
        As many cells that they are not of.
    reference
        Cells that the attacker has.
    """

    members: np.ndarray
    others: np.ndarray
    reference: np.ndarray


def attack_split(rows: sp.csr_matrix, split: Split, most_directions: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return the scores of each attack on members, then on others, by name of the attack.

    Parameters
    ----------
    rows
        Unit profiles of a type, (cells, g).
    split
        Which of them are exported.
    most_directions
        Directions of the export, by the name under which the attack on them is told.
    """
    # 1. What is exported of the members, and what the attacker knows.
    wanted = max(most_directions.values(), default=0)
    statistics = type_statistics(rows[split.members], stage=1, name="", rank=wanted)
    reference = Reference.of(rows[split.reference].toarray().astype(np.float64))
    cells = np.concatenate([split.members, split.others])
    profiles = rows[cells].toarray().astype(np.float64)
    # 2. Mean, and directions.
    scores = {LIKELIHOOD: likelihood(profiles, statistics.mean, reference)}
    for name, k in most_directions.items():
        if k:
            scores[name] = directions(profiles, statistics.with_rank(k))
    # 3. The difference of this export and one that was made before the last cells came: their mean, exactly.
    n, added = len(split.members), min(ADDED, len(split.members) // 2)
    before = np.asarray(rows[split.members[:-added]].mean(axis=0)).ravel()
    difference = (n * statistics.mean.astype(np.float64) - (n - added) * before) / added
    last = np.concatenate([np.arange(n - added, n), np.arange(n, n + added)])
    scores[DIFFERENCE] = likelihood(profiles[last], difference, reference)
    return scores


def members_first(scores: np.ndarray) -> float:
    """Return the AUROC of scores whose first half is of members."""
    half = len(scores) // 2
    return auroc(scores, np.arange(len(scores)) < half)


def half_width(area: float, n: int, draws: int) -> float:
    """Return half the width of a 95 % confidence interval of an AUROC.

    Parameters
    ----------
    area
        The AUROC, a mean over independent draws.
    n
        Members of a draw, and as many others.
    draws
        Number of independent draws: types, not ways to split one.
    """
    # The variance of Hanley and McNeil (1982).
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 + q2 - 2 * area**2)) / n**2
    return float(norm.ppf(0.975) * np.sqrt(max(variance, 0.0) / max(draws, 1)))


def cells_needed(n: int, area: float, goal: float) -> int:
    """Return how many cells a type would need for an AUROC, from what was measured at n cells.

    The distance between members and others, in standard deviations, falls with the root of the number of cells where
    the reference is large; so this is an extrapolation, and says so wherever it is told.
    """
    if area <= goal:
        return n
    ratio = norm.ppf(min(area, 0.9999)) / norm.ppf(goal)
    return int(np.ceil(n * ratio**2))
