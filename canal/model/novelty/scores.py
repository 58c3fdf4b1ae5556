"""Scores of how unlike all known types a cell is: pure functions of arrays, higher for newer.

Shapes: n cells, T classes, C types, D directions, N references.

The known cells that a cell is compared with, each with what it counts: p-values of novelties.

Novel by a threshold of the highest probability (scBERT calls such cells "Unassigned"; its threshold is 0.5).

The simplest detector: it needs nothing but the model's answer, and knows no rate of false alarms.

Shapes: n cells.

The paper's rule for novel cells, whose verdict on a cell depends on the other cells of its file.

CANAL (Wan et al., 2024, "novel cell detection"): a cell's score is the mean of its energy, scaled to [0, 1] by the
lowest and the highest of the file, and of one less its largest probability. The threshold comes from mixes of the
file's cells, drawn in pairs. The paper mixes what its hidden layer says of two cells; our classifier is linear in the
representation, so that a mix of two representations has the same mix of their logits.

Shapes: n cells of the file, C types, P pairs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from canal.errors import StageError
from canal.model.novelty.calibration import SIMILARITY_POWER

LOW, HIGH = 0.5, 0.9  # quantiles of known cells that become 0 and 1
FEWEST = 8  # cells of a type that give it quantiles of its own


@dataclass(frozen=True, kw_only=True)
class TypeScale:
    """What a score is among known cells, by the type that claims the cell.

    Attributes
    ----------
    low, high
        Quantiles of the score among known cells claimed by each type, (C,).
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, claimed: np.ndarray, types: int) -> "TypeScale":
        """Learn the quantiles.

        Parameters
        ----------
        score, claimed
            Of known cells: the score and the index of the type that claims each, (n,).
        types
            Number of types; one that claims few cells takes the quantiles of all.
        """
        quantiles = np.tile(np.quantile(score, [LOW, HIGH])[:, None], types)
        for t in range(types):
            own = score[claimed == t]
            if len(own) >= FEWEST:
                quantiles[:, t] = np.quantile(own, [LOW, HIGH])
        return cls(low=quantiles[0], high=quantiles[1])

    def standardised(self, score: np.ndarray, claimed: np.ndarray) -> np.ndarray:
        """Return the scores with the type's low quantile at 0 and its high quantile at 1, (n,)."""
        spread = np.maximum(self.high - self.low, 1e-9)
        return np.asarray((score - self.low[claimed]) / spread[claimed])


def centre_distance(
    coordinates: np.ndarray, whitening: np.ndarray, means: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared Mahalanobis distance to the nearest class centre, and that class.

    Parameters
    ----------
    coordinates
        Of cells, (n, D).
    whitening
        From coordinates to directions of unit spread within classes, (D, D); see `whitening_of`.
    means, n
        Centre (T, D) and cells of each class; a centre known from few cells counts as wider.
    """
    white, centres = coordinates @ whitening, means @ whitening
    squares = (white**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * white @ centres.T
    squares = np.maximum(squares, 0.0) / (1.0 + 1.0 / n)
    nearest = squares.argmin(axis=1)
    return squares[np.arange(len(squares)), nearest], nearest


def whitening_of(covariance: np.ndarray, floor: float = 1e-3) -> np.ndarray:
    """Return W with W W' the inverse of a covariance (D, D) whose variances are raised by a share of their mean."""
    raised = covariance + floor * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(raised)
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1e-12)))


def joined(standardised: Sequence[np.ndarray]) -> np.ndarray:
    """Return one number a cell from standardised scores: the sum of their signed ``log1p``."""
    return np.asarray(sum(np.sign(s) * np.log1p(np.abs(s)) for s in standardised))


def weighted_quantiles(score: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the `LOW` and the `HIGH` quantile of scores (n,) that count by their weight (n,)."""
    order = np.argsort(score, kind="stable")
    place = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    low, high = np.interp([LOW, HIGH], place, score[order])
    return float(low), float(high)


def max_probability(logits: np.ndarray) -> np.ndarray:
    """Return one less the largest softmax probability of logits (n, C)."""
    return np.asarray(1.0 - softmax(logits, axis=1).max(axis=1))


def energy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the free energy ``-t logsumexp(logits / t)`` of logits (n, C)."""
    return np.asarray(-temperature * logsumexp(logits / temperature, axis=1))


@dataclass(frozen=True, kw_only=True)
class ReferenceCells:
    """Known cells to compare with, through one set of genes.

    Attributes
    ----------
    novelty
        Of each cell, ascending, (m,).
    above
        Weight of the cells from each position on, and 0 behind the last, (m + 1,).
    """

    novelty: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, novelty: np.ndarray, weight: np.ndarray) -> "ReferenceCells":
        """Sort known cells.

        Parameters
        ----------
        novelty, weight
            Of each cell: its novelty, and what it counts beside the cell that is judged, which counts 1; (m,).

        Raises
        ------
        StageError
            If there is none.
        """
        if not len(novelty) or weight.sum() <= 0:
            message = (
                "The model has no novelty calibration: it was made by an older canal, or without held-out cells and "
                "example bank. Add the stage again, or annotate without novelty."
            )
            raise StageError(message)
        order = np.argsort(novelty, kind="stable")
        above = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
        return cls(novelty=novelty[order], above=above)

    def p_values(self, novelty: np.ndarray) -> np.ndarray:
        """Return the weighted share of known cells that look at least as new, the cell itself counted in, (n,).

        A known cell exchangeable with the reference has a p-value of at most alpha with a chance of at most alpha.
        """
        beyond = self.above[np.searchsorted(self.novelty, novelty, side="left")]
        return np.asarray((beyond + 1.0) / (self.above[0] + 1.0))


def stage_weights(similarity: Mapping[int, float]) -> dict[int, float]:
    """Return how much each stage's known cells count for a file, 1 for the stage of the most similar genes.

    Parameters
    ----------
    similarity
        Of the file's genes and each stage's, from 0 to 1.
    """
    best = max(similarity.values(), default=0.0)
    if best <= 0:
        return dict.fromkeys(similarity, 1.0)
    return {stage: (value / best) ** SIMILARITY_POWER for stage, value in similarity.items()}


def natural_weights(stages: np.ndarray, types: np.ndarray, counts: Mapping[tuple[int, str], int]) -> np.ndarray:
    """Weigh the cells of an evenly filled bank so that types count by their cells in the stage, mean 1 in each stage.

    Parameters
    ----------
    stages, types
        Of each cell, (N,).
    counts
        Number of cells of each type of each stage; a type that is not counted weighs by its cells in the bank.
    """
    keys = list(zip(stages.tolist(), types.tolist(), strict=True))
    kept = Counter(keys)
    weight = np.array([counts.get(key, kept[key]) / kept[key] for key in keys], dtype=np.float64)
    for stage in np.unique(stages):
        weight[stages == stage] /= weight[stages == stage].mean()
    return weight


PUBLISHED = 0.5


@dataclass(frozen=True, kw_only=True)
class ProbabilityVerdicts:
    """What the threshold says of cells: novelty 1 - p, float32 (n,), and ``"known"`` or ``"novel"``, (n,)."""

    novelty: np.ndarray
    status: np.ndarray


def probability_verdicts(highest: np.ndarray, threshold: float) -> ProbabilityVerdicts:
    """Call a cell novel whose highest probability is below the threshold.

    Parameters
    ----------
    highest
        Highest probability of any known type, (n,).
    threshold
        Between 0 and 1.
    """
    status = np.where(highest < threshold, "novel", "known").astype(object)
    return ProbabilityVerdicts(novelty=(1.0 - highest).astype(np.float32), status=status)


def check_threshold(threshold: float) -> None:
    """Refuse what is no probability to compare with.

    Raises
    ------
    StageError
        If the threshold is not above 0 and at most 1.
    """
    if not 0.0 < threshold <= 1.0:
        message = (
            f"--min-probability is {threshold:g}; expected a number above 0 and at most 1. scBERT takes {PUBLISHED}."
        )
        raise StageError(message)


TEMPERATURE = 0.8  # T of the paper's energy
WEIGHTS = 128  # mixes of each pair, their weights uniform in [0, 1]: the paper's Beta(1, 1)
PAIRS = 1_000  # the mean over this many settles the threshold to the third decimal


@dataclass(frozen=True, kw_only=True)
class Mixes:
    """Which cells of a file are mixed.

    Attributes
    ----------
    first, second
        Rows of the pairs, (P,).
    weights
        Of the first cell of a pair, (W,).
    """

    first: np.ndarray
    second: np.ndarray
    weights: np.ndarray

    @classmethod
    def draw(cls, cells: int, rng: np.random.Generator) -> "Mixes":
        """Draw a partner for each cell, or for `PAIRS` of them where there are more.

        Parameters
        ----------
        cells
            Number of cells of the file, n.
        rng
            Draws pairs and weights.
        """
        first = np.arange(cells) if cells <= PAIRS else np.sort(rng.choice(cells, PAIRS, replace=False))
        return cls(first=first, second=rng.integers(cells, size=len(first)), weights=rng.random(WEIGHTS))

    @property
    def rows(self) -> np.ndarray:
        """Rows that are mixed, ascending."""
        return np.union1d(self.first, self.second)


def transductive_scores(confidence: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Return the paper's score of every cell of a file, 0 to 1 and higher for newer, (n,).

    Parameters
    ----------
    confidence
        Largest probability of each cell, (n,).
    energies
        Energy of each cell at `TEMPERATURE`, (n,).
    """
    return np.asarray((_min_max(energies) + 1.0 - confidence) / 2.0)


def transductive_threshold(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Return the score above which a cell of the file is novel: one less the mean score of mixed cells.

    Parameters
    ----------
    first, second
        Logits of the cells of each pair, (P, C).
    weights
        Of the first, (W,).
    """
    w = weights.astype(np.float32)[None, :, None]
    mixes = (w * first[:, None, :] + (1 - w) * second[:, None, :]).reshape(-1, first.shape[1])
    scores = transductive_scores(1.0 - max_probability(mixes), energy(mixes, TEMPERATURE))
    return float(1.0 - scores.mean())


def _min_max(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low)) if high > low else np.zeros(len(values))
