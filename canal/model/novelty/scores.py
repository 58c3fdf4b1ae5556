"""Scores of how unlike all known types a cell is: pure functions of arrays, higher for newer.

Four parts, in this order:

- the scores of the detector: distance to a class centre, its standardisation by type, the sum of the two scores
- p-values: the known cells that a cell is compared with (`ReferenceCells`), and what each of them counts
- the threshold rule: novel below a highest probability. scBERT calls such cells "Unassigned"; its threshold is 0.5. It
  needs nothing but the model's probabilities, and has no known rate of false alarms
- the transductive rule, the paper's, whose verdict on a cell depends on the other cells of its file. CANAL (Wan et
  al., 2024, "novel cell detection"): a cell's score is the mean of its energy, scaled to [0, 1] by the lowest and the
  highest of the file, and of one less its largest probability. The threshold comes from mixes of the file's cells,
  drawn in pairs. The paper mixes the hidden layers of two cells; our classifier is linear in the representation, so
  that a mix of two representations has the same mix of their logits

Shapes: n cells, T classes, C types, D directions, N cells of the bank, m reference cells, P pairs, W weights.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from canal.errors import StageError
from canal.model.novelty.calibration import SIMILARITY_POWER

LOW, HIGH = 0.5, 0.9  # quantiles of known cells that become 0 and 1
FEWEST = 8  # cells of a type at least for quantiles of its own
FLOOR = 1e-3  # of the mean variance, added to each: no direction gets a weight without bound


@dataclass(frozen=True, kw_only=True)
class TypeScale:
    """The scale of a score among known cells, by the type that claims the cell: the type it is nearest to.

    Attributes
    ----------
    low, high
        Quantiles of the score among the known cells that each type claims, (C,).
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, score: np.ndarray, claimed: np.ndarray, types: int) -> "TypeScale":
        """Learn the quantiles.

        Parameters
        ----------
        score, claimed
            Score of known cells, and the index of the type that claims each, (n,).
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
        Centre (T, D) and number of cells of each class; the distance to a centre known from few cells is reduced.
    """
    # Squared distances of all cells to all centres, from the products.
    white, centres = coordinates @ whitening, means @ whitening
    squares = (white**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * white @ centres.T
    squares = np.maximum(squares, 0.0) / (1.0 + 1.0 / n)
    nearest = squares.argmin(axis=1)
    return squares[np.arange(len(squares)), nearest], nearest


def whitening_of(covariance: np.ndarray) -> np.ndarray:
    """Return W with W W' the inverse of a covariance (D, D) whose variances are raised by `FLOOR` of their mean."""
    raised = covariance + FLOOR * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(raised)
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1e-12)))


def combined(standardised: Sequence[np.ndarray]) -> np.ndarray:
    """Return one number a cell from standardised scores: the sum of their signed ``log1p``."""
    return np.asarray(sum(np.sign(s) * np.log1p(np.abs(s)) for s in standardised))


def weighted_quantiles(score: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the `LOW` and the `HIGH` quantile of scores (n,) that count by their weight (n,)."""
    order = np.argsort(score, kind="stable")
    place = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    low, high = np.interp([LOW, HIGH], place, score[order])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class ReferenceCells:
    """The known cells that a cell is compared with, through one set of genes.

    Attributes
    ----------
    novelty
        Of each known cell, ascending, (m,).
    above
        Weight of the known cells from each position on, and 0 behind the last, (m + 1,).
    """

    novelty: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, novelty: np.ndarray, weight: np.ndarray) -> "ReferenceCells":
        """Sort known cells by their novelty.

        Parameters
        ----------
        novelty, weight
            Novelty of each known cell, and its weight beside the cell that is judged, which has weight 1; (m,).

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
        """Return the weighted share of known cells whose novelty is at least as high, the cell itself included, (n,).

        A known cell exchangeable with the reference has a p-value of at most alpha with a chance of at most alpha.
        """
        beyond = self.above[np.searchsorted(self.novelty, novelty, side="left")]
        return np.asarray((beyond + 1.0) / (self.above[0] + 1.0))

    def quantile(self, share: float) -> float:
        """Return the novelty below which a weighted share of the known cells lies."""
        below = 1.0 - self.above[:-1] / self.above[0]
        return float(self.novelty[max(int(np.searchsorted(below, share, side="right")) - 1, 0)])


def stage_weights(similarity: Mapping[int, float]) -> dict[int, float]:
    """Return the weight of each stage's known cells for a file, 1 for the stage of the most similar genes.

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
    groups = list(zip(stages.tolist(), types.tolist(), strict=True))
    in_bank = Counter(groups)
    weight = np.array([counts.get(group, in_bank[group]) / in_bank[group] for group in groups], dtype=np.float64)
    for stage in np.unique(stages):
        weight[stages == stage] /= weight[stages == stage].mean()
    return weight


PUBLISHED = 0.5  # scBERT's threshold


@dataclass(frozen=True, kw_only=True)
class ProbabilityVerdicts:
    """Verdicts of the threshold rule: novelty 1 - p, float32 (n,), and ``"known"`` or ``"novel"``, (n,)."""

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
    """Refuse a threshold that is no probability.

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


def max_probability(logits: np.ndarray) -> np.ndarray:
    """Return the largest softmax probability of logits (n, C), (n,)."""
    return np.asarray(softmax(logits, axis=1).max(axis=1))


def energy(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the free energy ``-t logsumexp(logits / t)`` of logits (n, C), (n,)."""
    return np.asarray(-temperature * logsumexp(logits / temperature, axis=1))


@dataclass(frozen=True, kw_only=True)
class Mixes:
    """Which cells of a file are mixed, for the threshold of the transductive rule.

    Attributes
    ----------
    first, second
        Rows of the two cells of each pair, (P,).
    weights
        Of the first cell in the mixes of a pair, (W,).
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
        """Rows of all cells that are mixed, ascending."""
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
        Logits of the two cells of each pair, (P, C).
    weights
        Of the first cell in the mixes of a pair, (W,).
    """
    w = weights.astype(np.float32)[None, :, None]
    mixes = (w * first[:, None, :] + (1 - w) * second[:, None, :]).reshape(-1, first.shape[1])
    scores = transductive_scores(max_probability(mixes), energy(mixes, TEMPERATURE))
    return float(1.0 - scores.mean())


def _min_max(values: np.ndarray) -> np.ndarray:
    """Scale values to [0, 1] by the lowest and the highest; 0 where all are the same."""
    low, high = values.min(), values.max()
    if not high > low:
        return np.zeros(len(values))
    return np.asarray((values - low) / (high - low))
